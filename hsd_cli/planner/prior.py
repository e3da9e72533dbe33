"""What is expected of a pair before its first text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hsd_cli.planner.record import Kind, PairRecord


@dataclass(frozen=True)
class Prior:
    """``step``: what a drafter step takes, as a share of a target pass over one token.

    ``acceptance``: of one drafted token by algorithm, where it was measured.
    """

    step: float
    acceptance: Mapping[str, float] = field(default_factory=dict)


def measured_prior(record: PairRecord, kind: Kind) -> Prior:
    """What was measured on texts of this kind; of the steps, with all that belongs to one, the cheapest algorithm's."""
    trials = {name: trial for name, trial in record.trials(kind).items() if name != "lookup"}
    steps = [trial.draft_seconds for trial in trials.values()]
    return Prior(
        step=max(min(steps, default=0.0), record.step_seconds) / record.pass_seconds[0],
        acceptance={name: trial.acceptance for name, trial in trials.items()},
    )
