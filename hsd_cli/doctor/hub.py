"""The Hugging Face hub: whether it answers, and whether there is a token for it."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread
from urllib.parse import urlsplit

from hsd_cli.doctor.check import Check, Finding

PATIENCE = 5.0  # seconds, all in all: looking up a name has no limit of its own


def hub() -> Iterator[Check]:
    yield Check("hub", _access)
    yield Check("hub token", _token)


def _access() -> Finding:
    from huggingface_hub import constants, get_session

    host = urlsplit(constants.ENDPOINT).hostname  # an address may have a password in it
    downloaded = "what is downloaded still works"
    if constants.HF_HUB_OFFLINE:
        return Finding("warning", f"offline mode: {downloaded}", "to download, unset HF_HUB_OFFLINE")
    answers: list[int] = []
    reasons: list[str] = []

    def ask() -> None:
        try:
            answers.append(get_session().head(constants.ENDPOINT, timeout=PATIENCE).status_code)
        except Exception as error:  # a library's many ways to say that nobody is there
            reasons.append(str(error) or type(error).__name__)

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if answers and answers[0] < 500:
        return Finding("ok", f"{host} answers")
    reason = f"it answers {answers[0]}" if answers else "".join(reasons) or f"no answer in {PATIENCE:g} s"
    return Finding(
        "warning", f"{host} cannot be used ({reason}): {downloaded}", "check the network, a proxy, and HF_ENDPOINT"
    )


def _token() -> Finding:
    from huggingface_hub import get_token

    if get_token() is None:
        return Finding("ok", "none; only gated and private models need one, from `hf auth login`")
    return Finding("ok", "there is one")
