"""What was measured of a pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from hsd_cli.planner.speedup import RelativeCosts

Kind = Literal["greedy", "sampled"]
KINDS: tuple[Kind, ...] = ("greedy", "sampled")


@dataclass(frozen=True)
class Trial:
    """Counts of one algorithm over the sample prompts; ``drafts`` of the ``iterations`` had something to propose.

    ``tested`` proposals are those whose predecessors in the draft were all accepted, so that ``acceptance`` is that of
    a single proposal, the ``a`` of the formula; ``drafted`` are all. ``draft_seconds``: of drafting one token, with all
    that belongs to it: the median of what an iteration took beyond its target pass.
    """

    iterations: int
    drafts: int
    drafted: int
    tested: int
    accepted: int
    draft_seconds: float

    def __post_init__(self) -> None:
        _check(0 <= self.accepted <= self.tested <= self.drafted)
        _check(0 < self.drafts <= min(self.iterations, self.tested))
        _check(0 <= self.draft_seconds < inf)

    @property
    def acceptance(self) -> float:
        return self.accepted / self.tested

    @property
    def share(self) -> float:
        """Of iterations that draft."""
        return self.drafts / self.iterations


@dataclass(frozen=True)
class PairRecord:
    """Measured on one machine: seconds of a target pass over ``k`` tokens in ``pass_seconds[k - 1]``, seconds of a
    drafter step, and the trials by algorithm. ``sampled`` is at temperature 1 under `rejection`.

    Raises ``ValueError`` for what nobody can have measured.
    """

    pass_seconds: tuple[float, ...]
    step_seconds: float
    greedy: Mapping[str, Trial]
    sampled: Mapping[str, Trial]

    def __post_init__(self) -> None:
        _check(len(self.pass_seconds) >= 2)
        _check(all(0 < seconds < inf for seconds in (*self.pass_seconds, self.step_seconds)))

    def trials(self, kind: Kind) -> Mapping[str, Trial]:
        return self.greedy if kind == "greedy" else self.sampled

    def costs(self, trial: Trial) -> RelativeCosts:
        """As measured with the algorithm of ``trial``."""
        plain = self.pass_seconds[0]
        return RelativeCosts(trial.draft_seconds / plain, [each / plain for each in self.pass_seconds])

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PairRecord:
        """Of what ``dataclasses.asdict`` makes of a record. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        greedy, sampled = (
            {name: Trial(**trial) for name, trial in data[kind].items()} for kind in ("greedy", "sampled")
        )
        return cls(tuple(data["pass_seconds"]), data["step_seconds"], greedy, sampled)


def _check(holds: bool) -> None:
    if not holds:
        raise ValueError("not a measurement")
