"""What `hsd bench` measured, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

PHASES = ("draft", "verify", "translate", "overhead")  # of decoding; overhead is what is in none of the others
# Parts of an iteration, the forward passes apart. Choosing is the draft without the drafter's passes: sampling, and the
# way to the target's vocabulary. Checking is the verification without the target's pass.
PARTS = ("target", "checking", "drafter", "choosing", "translation", "rest")


@dataclass(frozen=True)
class Sample:
    """One contender on one prompt, once.

    ``seconds`` passed until the last token, ``first_seconds`` until the first ones. The rest is decoding, and
    ``decode_seconds`` are without what a drafter still had to read of the prompt. ``iterations``: drafted and accepted
    tokens of each. The first one is no decoding: neither ``phases`` (exclusive seconds) nor ``steps`` (passes of the
    drafter) are of it, nor ``passes``, the seconds that each model's passes took within the phases (known on a CPU).
    ``peak_memory`` is in bytes.
    """

    prompt: int
    repeat: int
    seconds: float
    first_seconds: float
    decode_seconds: float
    tokens: int
    first_tokens: int
    iterations: tuple[tuple[int, int], ...]
    steps: int
    phases: Mapping[str, float] | None = None
    passes: Mapping[str, float] | None = None
    peak_memory: int | None = None


@dataclass(frozen=True)
class Spread:
    """Of one figure over the repeats."""

    median: float
    lowest: float
    lower_quartile: float
    upper_quartile: float
    highest: float


@dataclass(frozen=True)
class Costs:
    """Median seconds of bare forward passes: the target's over 1, 2, ... tokens, and one step of the drafter."""

    target_passes: tuple[float, ...]
    drafter_step: float | None


@dataclass(frozen=True)
class Place:
    """A place in the drafts: how often something was drafted there, and accepted."""

    drafted: int
    accepted: int


@dataclass(frozen=True)
class Figures:
    """The sums of a contender's samples; ``None`` is what was not measured.

    ``split``: shares of the decoding time. ``profile``: seconds per iteration by part. ``bandwidth``: bytes of weights
    per second. ``efficiency``: see `Costs`; what the passes alone would take, over what decoding took.
    """

    tokens_per_second: Spread
    speed_up: Spread
    acceptance: float | None
    acceptance_by_place: tuple[Place, ...]
    tokens_per_iteration: float
    first_seconds: Spread
    split: Mapping[str, float] | None
    profile: Mapping[str, float] | None
    peak_memory: int | None
    bandwidth: float
    efficiency: Spread | None


@dataclass(frozen=True)
class Result:
    contender: str
    figures: Figures
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Comparison:
    """Every contender on one kind of text at one temperature."""

    task: str
    temperature: float
    prompts: int
    costs: Costs
    results: tuple[Result, ...]


@dataclass(frozen=True)
class BenchReport:
    """``unfit``: algorithms that cannot serve the pair, and why. ``process_memory``: the most bytes that the process
    ever held in RAM, known where it computes on the CPU. ``complete=False``: it was interrupted.
    """

    target: str
    drafter: str | None
    device: str
    dtype: str
    lookahead: int
    tokens: int
    repeats: int
    machine: Mapping[str, str | int]
    notes: tuple[str, ...]
    unfit: Mapping[str, str]
    comparisons: tuple[Comparison, ...]
    process_memory: int | None
    complete: bool

    def json(self) -> str:
        """One object on one line, in ASCII, which no terminal obeys."""
        return json.dumps(asdict(self)) + "\n"
