"""What ``python3 dev.py demo`` shows: the embedded pair writes a text, and how many times plain decoding that was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from time import perf_counter
from typing import NamedTuple

from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Engine, Generation, Request
from hsd_cli.models.locate import EMBEDDED_DRAFTER, EMBEDDED_TARGET
from hsd_cli.runtime.loading import load_model

PROMPT = 'def parse_date(text):\n    """Return the date in *text*.'
# Greedy, so that the text is the same, drafted or not. Without a penalty such small models soon repeat themselves, and
# copying would be all that pays. Text in another vocabulary is what is shown here, so that no copies are drafted.
SAMPLING = SamplingSettings(repetition_penalty=1.1)
DRAFTED = Request(PROMPT, algorithm="slem", lookahead=3, sampling=SAMPLING, max_new_tokens=128)
PLAIN = replace(DRAFTED, algorithm="ar")
REPEATS = 5


def main() -> None:
    engine = Engine(load_model(EMBEDDED_TARGET), load_model(EMBEDDED_DRAFTER))
    print(PROMPT, end="", flush=True)
    generation = engine.generate(DRAFTED)
    for commit in generation.commits:
        print(commit.text, end="", flush=True)
    print(f"\n\n{drafts(generation)}", flush=True)
    plain, drafted = zip(*turns(engine), strict=True)
    times = median(ours.speed / theirs.speed for theirs, ours in zip(plain, drafted, strict=True))
    same = "the same text" if len({each.tokens for each in (*plain, *drafted)}) == 1 else "not the same text"
    print(
        f"hsd: {times:.1f} times plain decoding: {median(each.speed for each in drafted):.0f} tokens/s against "
        f"{median(each.speed for each in plain):.0f}, {same}, medians of {REPEATS} turns"
    )


def drafts(generation: Generation) -> str:
    counts = generation.statistics
    passes = ", ".join(f"{name} {count}" for name, count in counts.iterations_by.most_common())
    return (
        f"hsd: {counts.tokens} tokens of {EMBEDDED_TARGET} in {counts.iterations} passes ({passes}); it accepted "
        f"{counts.accepted} of {counts.drafted} tokens that {EMBEDDED_DRAFTER} drafted in another vocabulary"
    )


class Written(NamedTuple):
    """A text, and how many tokens per second there were after the first ones."""

    tokens: tuple[int, ...]
    speed: float


def turns(engine: Engine) -> Iterator[tuple[Written, Written]]:
    """Without and with drafts; the other one comes first each time."""
    for turn in range(REPEATS):
        order = (PLAIN, DRAFTED) if turn % 2 else (DRAFTED, PLAIN)
        texts = {request.algorithm: write(engine, request) for request in order}
        yield texts[PLAIN.algorithm], texts[DRAFTED.algorithm]


def write(engine: Engine, request: Request) -> Written:
    engine.forget()  # each reads the prompt
    commits = iter(engine.generate(request).commits)
    first = next(commits).pieces
    begun = perf_counter()
    others = [piece for commit in commits for piece in commit.pieces]
    seconds = perf_counter() - begun
    return Written(tuple(piece.token for piece in (*first, *others)), len(others) / seconds)


if __name__ == "__main__":
    main()
