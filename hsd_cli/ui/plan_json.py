"""Plans for machines. Sizes are in bytes, times in seconds; what is predicted has its least and its most."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hsd_cli.errors import HsdError
from hsd_cli.planner.pair_plan import ASSUMED_ACCEPTANCE, Demand, ModelFacts, PairPlan
from hsd_cli.planner.speedup import FORMULA
from hsd_cli.planner.verdict import judge
from hsd_cli.vocab.report import Side


def to_json(plans: Sequence[PairPlan], unfit: Mapping[str, HsdError]) -> str:
    """One object; the drafters as ranked, ``unfit`` with the reasons."""
    return json.dumps(
        {
            "target": _model(plans[0].target),
            "formula": FORMULA,
            "assumed_acceptance": ASSUMED_ACCEPTANCE,
            "drafters": [_plan(plan) for plan in plans],
            "unfit": [{"name": name, "reason": str(error)} for name, error in unfit.items()],
        },
        indent=2,
    )


def _model(facts: ModelFacts) -> dict[str, Any]:
    return {"name": facts.name, **asdict(facts.footprint)}


def _plan(plan: PairPlan) -> dict[str, Any]:
    verdict = judge(plan)
    return {
        **_model(plan.drafter),
        "answer": verdict.answer,
        "reason": verdict.reason,
        "device": str(plan.placements[0].device),
        "dtype": _name(plan.placements[0].dtype),
        "vocabularies": {
            "same": plan.vocabularies.same,
            "target": _side(plan.vocabularies.a),
            "drafter": _side(plan.vocabularies.b),
        },
        "algorithms": plan.vocabularies.verdict.algorithms,
        "context": plan.context,
        "memory": [_demand(demand) for demand in plan.demands],
        "cost_ratio": plan.cost,
        "step_ratio": plan.step_ratios,
        "drafter_tokens_per_target_token": plan.steps_per_token,
        "assumed_pass": [1.0, plan.slowest_pass],
        "break_even_acceptance": plan.break_even,
        "speed_up": [asdict(plan.worst), asdict(plan.best)],
        "measured": _measured(plan),
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "tokens": side.tokens,
        "shared_fraction": side.shared_fraction,
        "share_of_text": side.share_of_text,
        "bytes_per_token": side.bytes_per_token,
    }


def _demand(demand: Demand) -> dict[str, Any]:
    fits = {"target_fits": demand.target <= demand.memory, "both_fit": demand.both <= demand.memory}
    return asdict(demand) | {"dtype": _name(demand.dtype)} | fits


def _measured(plan: PairPlan) -> dict[str, Any] | None:
    """What was measured, and what follows from it, the fastest first."""
    if plan.record is None:
        return None
    predictions = [
        {"algorithm": outcome.algorithm, "text": outcome.kind, **asdict(outcome.prediction)}
        for outcome in plan.outcomes
    ]
    return asdict(plan.record) | {"predicted": predictions}


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
