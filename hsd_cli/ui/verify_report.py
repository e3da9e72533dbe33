"""What `hsd verify` found out about a pair, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

Decoding = Literal["greedy", "coupled"]


@dataclass(frozen=True)
class Scores:
    """Why two texts part: what the target gives plain decoding's token (first) and the algorithm's (second).

    Logits after the sampling settings and, under `coupled`, plus the place's noise: the larger one is written.
    ``one_by_one``: one token per forward pass, as plain decoding reads. ``together``: in the passes of verification.
    ``gap`` is the larger difference of the two tokens, ``rounding`` what the number format explains.
    """

    one_by_one: tuple[float, float]
    together: tuple[float, float]
    gap: float
    rounding: float


@dataclass(frozen=True)
class Difference:
    """The first place (from 0) at which a text is not plain decoding's; ``tokens`` are plain's and the algorithm's.

    Without ``scores`` one text ends where the other goes on.
    """

    prompt: str
    place: int
    tokens: tuple[str, str]
    scores: Scores | None
    verdict: Literal["tie", "defect"]


@dataclass(frozen=True)
class Comparison:
    """One algorithm's texts against plain decoding's. ``tokens`` were equal before the differences, if any."""

    algorithm: str
    decoding: Decoding
    tokens: int
    drafted: int
    accepted: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class ChiSquare:
    """A chi-square statistic, its degrees of freedom, and the probability of one as large where nothing is wrong.

    ``detectable``: the total variation distance that would be found every other time.
    """

    statistic: float
    freedom: int
    p_value: float
    detectable: float


@dataclass(frozen=True)
class LawTest:
    """One algorithm's first tokens under `rejection`: ``samples`` texts against as many of plain decoding.

    ``first_token``: the first token alone against the target's exact distribution.
    """

    algorithm: str
    samples: int
    drafted: int
    accepted: int
    two_sample: ChiSquare
    first_token: ChiSquare
    verdict: Literal["passed", "untested", "defect"]


@dataclass(frozen=True)
class PromptCheck:
    """How texts become ids of the target, which has a row of its embedding for each id below ``rows``.

    Of ``texts``, how many have other ids than ``tokenizer.json`` gives them (``None``: nothing to compare with), are
    not what their ids spell (some tokenizers drop characters, or change them), and have ids without a row.
    """

    texts: int
    other_ids: int | None
    not_spelled: int
    without_row: int
    rows: int

    @property
    def defects(self) -> int:
        return (self.other_ids or 0) + self.without_row


@dataclass(frozen=True)
class VerifyReport:
    """Everything that was checked. ``unfit``: the algorithms that cannot serve the pair, and why."""

    target: str
    drafter: str | None
    device: str
    dtype: str
    temperature: float
    lookahead: int
    seed: int
    parallel: bool
    prompts: tuple[str, ...]
    prompt: PromptCheck
    unfit: Mapping[str, str]
    comparisons: tuple[Comparison, ...]
    laws: tuple[LawTest, ...]
    significance: float
    ties: int
    defects: int

    def json(self) -> str:
        """One object on one line, in ASCII, which no terminal obeys."""
        return json.dumps(asdict(self))
