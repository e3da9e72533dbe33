"""The embedded pair at work: the whole way from a prompt to a text that drafting has not changed."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from hsd_cli.doctor.check import Check, Finding
from hsd_cli.models.locate import EMBEDDED_DRAFTER, EMBEDDED_TARGET

PROMPT = "class Stack:\n    def __init__(self"
TOKENS = 16


def self_test() -> Iterator[Check]:
    yield Check("self-test", _generates)


def _generates() -> Finding:
    from hsd_cli.engine import Engine, Request
    from hsd_cli.runtime.loading import load_model

    # float32: with fewer bits two tokens may be equally likely, and either is right.
    engine = Engine(load_model(EMBEDDED_TARGET, dtype="float32"), load_model(EMBEDDED_DRAFTER, dtype="float32"))

    def text(algorithm: str) -> str:
        request = Request(PROMPT, chat=False, algorithm=algorithm, max_new_tokens=TOKENS)
        return "".join(commit.text for commit in engine.generate(request).commits)

    begun = perf_counter()
    plain, drafted = text("ar"), text("slem")
    seconds = perf_counter() - begun
    if drafted != plain:
        return Finding(
            "broken",
            "the embedded pair writes another text with a drafter",
            f"run: hsd verify {EMBEDDED_TARGET} {EMBEDDED_DRAFTER}",
        )
    where = engine.target.model.device
    return Finding("ok", f"{TOKENS} tokens on {where} in {seconds:.1f} s, the same with and without a drafter")
