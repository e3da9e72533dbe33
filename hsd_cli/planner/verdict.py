"""Whether to use a pair, in one plain sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hsd_cli.planner.pair_plan import ASSUMED_ACCEPTANCE, Outcome, PairPlan
from hsd_cli.planner.record import KINDS, Kind
from hsd_cli.planner.speedup import predict

WORTHWHILE = 1.05  # speed-ups below that are lost in the noise of measuring them
WITHOUT_DRAFTER = "; `--algorithm lookup` needs no drafter"


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
    return too_large(plan) or _predicted(plan)


def rank(plan: PairPlan) -> tuple[int, float]:
    """Sorts the worthwhile first, then the faster."""
    return ("yes", "maybe", "don't").index(judge(plan).answer), -plan.expected_speed_up


def too_large(plan: PairPlan) -> Verdict | None:
    """If the device that the pair would run on has not the memory for it."""
    where = plan.placements[0].device
    demand = next((d for d in plan.demands if d.device in (str(where), f"{where}:0")), None)
    if demand is None or demand.both <= demand.memory:
        return None
    who, size = ("the target", demand.target) if demand.target > demand.memory else ("the pair", demand.both)
    return Verdict(
        "don't",
        f"{who} takes {size / 1e9:.3g} GB and {where} has {demand.memory / 1e9:.3g} GB; "
        "choose a smaller model, a shorter --context or another --dtype",
    )


def _predicted(plan: PairPlan) -> Verdict:
    cost = f"one drafted token costs {_span(*plan.cost)} of a target pass"
    ideal = predict(1.0, plan.fast)
    if ideal.speed_up < WORTHWHILE:
        reason = f"{cost}; with every draft accepted it would be ×{ideal.speed_up:.2f}"
        return Verdict("don't", reason + WITHOUT_DRAFTER)
    quick, slow = plan.break_even
    if plan.best.speed_up < WORTHWHILE:
        reason = f"{cost}, so that it breaks even at acceptance {quick:.2f}, which pairs hardly exceed"
        return Verdict("don't", reason + WITHOUT_DRAFTER)
    if plan.worst.speed_up >= WORTHWHILE:
        return Verdict("yes", f"{cost}, so that it pays even at acceptance {ASSUMED_ACCEPTANCE[0]}")
    return Verdict("maybe", f"{cost}; it pays from acceptance {_span(quick, slow)} on: --measure tells")


def _span(low: float | None, high: float | None) -> str:
    """Two figures that may round to the same; ``None`` is an acceptance out of reach."""
    first, last = (f"{1.0 if value is None else value:.2f}" for value in (low, high))
    return first if first == last else f"{first} to {last}"


def _measured(plan: PairPlan) -> Verdict:
    paying: list[Outcome] = []
    losing: list[Outcome] = []
    copying: list[Outcome] = []
    for kind in KINDS:
        drafts, copies = (_fastest(plan, kind, needs_drafter) for needs_drafter in (True, False))
        if drafts is not None:
            (paying if drafts.speed_up >= WORTHWHILE else losing).append(drafts)
        if copies is not None and copies.speed_up >= max(WORTHWHILE, drafts.speed_up if drafts else 0):
            copying.append(copies)
    sentences = []
    if paying:
        sentences.append("by what was measured " + _list(paying))
    if losing:
        sentences.append(("only " if paying else "by what was measured only ") + _list(losing))
    if not paying and not losing:
        sentences.append("it proposed nothing when it was measured")
    if copying:
        sentences.append(_list(copying) + ", which needs no drafter")
    return Verdict("yes" if paying else "don't", "; ".join(sentences))


def _fastest(plan: PairPlan, kind: Kind, needs_drafter: bool) -> Outcome | None:
    matching = (o for o in plan.outcomes if (o.kind, o.needs_drafter) == (kind, needs_drafter))
    return next(matching, None)


def _list(outcomes: list[Outcome]) -> str:
    return " and ".join(f"×{o.speed_up:.2f} for {o.kind} text with {o.algorithm}" for o in outcomes)
