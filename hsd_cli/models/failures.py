"""One table from what the hub and the libraries report to a sentence with the next thing to type."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from hsd_cli.errors import HsdError


def explain_failure(name: str, what: str, error: Exception) -> HsdError:
    """For what went wrong with ``what`` (``model``, ``tokenizer``, ...) of ``name``.

    The first line of the table that fits any of the causes speaks; what is in no line is quoted.
    """
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, HsdError):
            return cause
    for kinds, sentence in _table():
        for cause in causes:
            if isinstance(cause, kinds) and (explained := sentence(name, cause)):
                return HsdError(explained)
    first_line, *others = str(error).strip().splitlines() or [type(error).__name__]
    if first_line.endswith(":"):
        first_line = " ".join([first_line, *map(str.strip, others[:1])])
    return HsdError(f"cannot load the {what} of {name!r}: {first_line}")


Kinds = type[BaseException] | tuple[type[BaseException], ...]
Sentence = Callable[[str, BaseException], str | None]


def _table() -> list[tuple[Kinds, Sentence]]:
    """Special cases first, as with ``except``."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    return [
        (OfflineModeIsEnabled, lambda name, _: offline(name)),
        (HFValidationError, lambda name, _: f"{name!r} is neither a folder nor an id on the hub (organisation/model)"),
        (GatedRepoError, lambda name, _: _gated(name)),
        (
            RepositoryNotFoundError,
            lambda name, _: (
                f"no model {name!r} on the hub, and no such folder; check the spelling, or run `hf auth "
                "login` if it is private"
            ),
        ),
        (
            RevisionNotFoundError,
            lambda name, _: f"{name!r} has no such revision; leave --revision out, or see {_page(name)}/tree/main",
        ),
        (HfHubHTTPError, _refused),
        (
            (transport_error(), ConnectionError, LocalEntryNotFoundError),
            _unreachable,
        ),
        (
            PermissionError,
            lambda _, error: (
                f"no permission for {getattr(error, 'filename', None)!r}; change that, or set HF_HOME to "
                "a folder of yours"
            ),
        ),
        (OSError, _full_disk),
        (ValueError, needs_code),
        ((ImportError, ValueError), _missing_library),
        (RuntimeError, _missing_gpu),
        (RuntimeError, _other_shapes),
    ]


def transport_error() -> type[Exception]:
    """What all broken connections raise, in whichever HTTP library the installed version of the hub's is built on."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__bases__ if issubclass(kind, Exception))


def offline(name: str) -> str:
    return (
        f"{name!r} has to come from the hub, and HF_HUB_OFFLINE forbids it; unset HF_HUB_OFFLINE, then run: "
        f"hsd pull {quote(name)}"
    )


def _unreachable(name: str, _: BaseException) -> str:
    if Path(name).is_dir():  # its code is elsewhere
        return f"{name!r} refers to another repository, and there is no connection to the hub; check the network"
    return (
        f"{name!r} is not all here, and there is no connection to the hub (any more); check the network, then run: "
        f"hsd pull {quote(name)}"
    )


def _gated(name: str) -> str:
    from huggingface_hub import get_token

    then = "run: hf auth login" if get_token() is None else f"run: hsd pull {quote(name)}"
    return f"{name!r} is gated: accept its terms at {_page(name)}, then {then}"


def _refused(name: str, error: BaseException) -> str:
    """For an answer that is no file."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    if status == 401:
        return f"the hub does not accept your token for {name!r}; run: hf auth login (or unset HF_TOKEN)"
    if status == 403:
        return f"your token may not read {name!r}; allow it to on the hub, or run: hf auth login"
    if status == 429:
        return f"the hub has had too many requests from here; wait some minutes, then run: hsd pull {quote(name)}"
    return f"the hub answers {status} for {name!r}; try again later with: hsd pull {quote(name)}"


def _full_disk(name: str, error: BaseException) -> str | None:
    if getattr(error, "errno", None) != errno.ENOSPC:
        return None
    return f"the disk is full; delete models with `hsd rm`, then run: hsd pull {quote(name)}"


def needs_code(name: str, error: BaseException) -> str | None:
    """What to say of a checkpoint whose own code was not to be run; ``None`` for other errors."""
    return code_needed(name) if "Please pass the argument `trust_remote_code=True`" in str(error) else None


def code_needed(name: str) -> str:
    return (
        f"{name!r} needs Python code of its own, which can do anything here that you can do; if you trust its author, "
        "add --trust-remote-code"
    )


def _missing_library(name: str, error: BaseException) -> str | None:
    """The libraries say what to install, each in its own words."""
    if isinstance(error, ValueError) and "requires `accelerate`" not in str(error):
        return None
    found = re.search(r"pip install (?:-\S+ )*['\"]?([A-Za-z][\w.-]*(?:\[[\w,]+\])?)", str(error))
    return found and f"{name!r} needs a library that is not installed; run: pip install {quote(found[1])}"


def _missing_gpu(name: str, error: BaseException) -> str | None:
    if not re.search("GPU is required|No GPU|requires a GPU", str(error)):
        return None
    return f"{name!r} is quantized in a way that needs a GPU, and none was found; choose another version of the model"


def _other_shapes(name: str, error: BaseException) -> str | None:
    if "ignore_mismatched_sizes" not in str(error):  # advice about an option that is not ours
        return None
    return f"the weights of {name!r} have other shapes than its config.json says; download it again"


def _page(name: str) -> str:
    return f"{hub_address()}/{name.partition(':')[0]}"


def hub_address() -> str:
    """As it may be shown: without the password that an address can have in it."""
    from huggingface_hub.constants import ENDPOINT

    return re.sub("//[^/]*@", "//", ENDPOINT)
