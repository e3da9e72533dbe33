"""Whether to use a pair, in one plain sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hsd_cli.planner.memory import Kind
from hsd_cli.planner.pair_plan import ASSUMED_ACCEPTANCE, Outcome, PairPlan
from hsd_cli.planner.speedup import predict

WORTHWHILE = 1.05  # speed-ups below that are lost in the noise of measuring them


@dataclass(frozen=True)
class Verdict:
    """``maybe`` is for pairs that only measuring can tell."""

    answer: Literal["yes", "maybe", "don't"]
    reason: str

    def __str__(self) -> str:
        return f"{self.answer}: {self.reason}"


def judge(plan: PairPlan) -> Verdict:
    """From what was measured if anything was, else from memory and costs."""
    if plan.record is not None:
        return _measured(plan)
    return _too_large(plan) or _predicted(plan)


def _measured(plan: PairPlan) -> Verdict:
    kinds: tuple[Kind, ...] = ("greedy", "sampled")
    best = [outcome for kind in kinds for outcome in [o for o in plan.outcomes if o.kind == kind][:1]]
    paying = [outcome for outcome in best if _pays(outcome)]
    if not paying:
        return Verdict("don't", "by what was measured, drafting brings too little: " + _list(best))
    losing = [outcome for outcome in best if not _pays(outcome)]
    reason = "by what was measured: " + _list(paying)
    return Verdict("yes", reason + (f"; use ar instead of {_list(losing)}" if losing else ""))


def _pays(outcome: Outcome) -> bool:
    return outcome.prediction.speed_up >= WORTHWHILE


def _list(outcomes: list[Outcome]) -> str:
    return (
        " and ".join(
            f"×{o.prediction.speed_up:.2f} for {o.kind} text ({o.algorithm}, lookahead {o.prediction.lookahead})"
            for o in outcomes
        )
        or "nothing was ever proposed"
    )


def _too_large(plan: PairPlan) -> Verdict | None:
    where = plan.placements[0].device
    demand = next((d for d in plan.demands if d.device in (str(where), f"{where}:0")), None)
    if demand is None or demand.both <= demand.memory:
        return None
    who, size = ("the target", demand.target) if demand.target > demand.memory else ("the pair", demand.both)
    return Verdict(
        "don't",
        f"{who} takes {size / 1e9:.1f} GB and {where} has {demand.memory / 1e9:.1f} GB; "
        "choose a smaller model, a shorter --context or another --dtype",
    )


def _predicted(plan: PairPlan) -> Verdict:
    cost = f"one drafted token costs {plan.cost:.2f} of a target pass"
    ideal = predict(1.0, plan.fast)
    if ideal.speed_up < WORTHWHILE:
        return Verdict("don't", f"{cost}; even with every draft accepted it would be ×{ideal.speed_up:.2f}")
    quick, slow = plan.break_even
    if plan.best.speed_up < WORTHWHILE:
        return Verdict("don't", f"{cost}, so that it pays from acceptance {quick:.2f} on, which pairs hardly reach")
    if plan.worst.speed_up >= WORTHWHILE:
        return Verdict("yes", f"{cost}, so that it pays even at acceptance {ASSUMED_ACCEPTANCE[0]}")
    return Verdict("maybe", f"{cost}; it pays from acceptance {_span(quick, slow)} on: --measure tells")


def _span(quick: float | None, slow: float | None) -> str:
    """Two acceptances that may round to the same; ``slow`` may be out of reach."""
    low, high = (f"{1.0 if value is None else value:.2f}" for value in (quick, slow))
    return low if low == high else f"{low} to {high}"
