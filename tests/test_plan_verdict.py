"""What `hsd plan` concludes from sizes, costs and measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hsd_cli.errors import UsageError
from hsd_cli.planner import machine, pair_plan
from hsd_cli.planner.footprint import Footprint
from hsd_cli.planner.pair_plan import ModelFacts, PairPlan, plan_pair
from hsd_cli.planner.record import PairRecord, Trial
from hsd_cli.planner.verdict import judge, rank
from tests.tiny import vocabulary

BILLION = 10**9
LETTERS = vocabulary(["a", "b", "c"])


def facts(name: str, parameters: int, layers: int = 32, context: int = 8192) -> ModelFacts:
    return ModelFacts(name, Footprint("llama", layers, parameters, parameters, 1000, context), LETTERS)


TARGET = facts("target", 8 * BILLION)


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_plan, "memory_by_device", lambda: {"cpu": 64 * BILLION})


def plan(drafter: ModelFacts, target: ModelFacts = TARGET, context: int | None = None) -> PairPlan:
    return plan_pair(target, drafter, context, "cpu", "bfloat16")


def on_accelerator(planned: PairPlan) -> PairPlan:
    placements = tuple(replace(placement, device=torch.device("cuda")) for placement in planned.placements)
    steps = pair_plan._step_ratios(planned.target.footprint, planned.drafter.footprint, placements)
    return replace(planned, slowest_pass=1.0, step_ratios=steps)


def measured(planned: PairPlan, greedy: dict[str, float], sampled: dict[str, float], step: float = 0.01) -> PairPlan:
    """As if drafts had been accepted so often, at ``step`` target passes per drafted token."""
    trials = (
        {name: Trial(1000, 1000, 1000, 1000, round(1000 * each), step) for name, each in kind.items()}
        for kind in (greedy, sampled)
    )
    return replace(planned, record=PairRecord((1.0,) * 9, step, *trials))


# Sizes


def test_memory_is_weights_and_caches_of_both() -> None:
    (demand,) = plan(facts("drafter", BILLION), context=4000).demands
    assert demand.target == 2 * (8 * BILLION + 1000 * 4000)
    assert demand.both == demand.target + 2 * (BILLION + 1000 * 4000)


def test_the_context_is_the_target_s_at_most() -> None:
    assert plan(facts("drafter", BILLION), facts("target", BILLION, context=100)).context == 100
    with pytest.raises(UsageError, match="8192"):
        plan(facts("drafter", BILLION), context=8193)


def test_a_drafter_s_cache_ends_with_its_context() -> None:
    (demand,) = plan(facts("drafter", BILLION, context=50)).demands
    assert demand.drafter_cache == 2 * 1000 * 50


def test_a_container_s_limit_is_the_machine_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = machine.memory_by_device()["cpu"]
    for name, content in (("limit", "1000000\n"), ("unlimited", "max\n")):
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(machine, "CONTAINER_LIMITS", (str(tmp_path / "unlimited"), str(tmp_path / "none")))
    assert machine.memory_by_device()["cpu"] >= whole
    monkeypatch.setattr(machine, "CONTAINER_LIMITS", (str(tmp_path / "limit"),))
    assert machine.memory_by_device()["cpu"] == 1_000_000


# What is predicted


@pytest.mark.parametrize(
    ("parameters", "answer"),
    [(BILLION // 10, "maybe"), (BILLION, "maybe"), (7 * BILLION, "don't"), (8 * BILLION, "don't")],
)
def test_on_a_cpu_it_depends_on_the_drafter_s_size(parameters: int, answer: str) -> None:
    assert judge(plan(facts("drafter", parameters))).answer == answer


def test_a_drafter_as_large_as_its_target_is_refused_whatever_it_knows() -> None:
    verdict = judge(plan(facts("drafter", 8 * BILLION)))
    assert "costs 1.00 of a target pass; with every draft accepted it would be ×1.00" in verdict.reason
    assert "lookup` needs no drafter" in verdict.reason


def test_an_acceptance_that_is_hardly_reached_is_named() -> None:
    verdict = judge(plan(facts("drafter", 6 * BILLION + BILLION // 2)))
    assert verdict.answer == "don't"
    assert "breaks even at acceptance 0.81" in verdict.reason


def test_on_an_accelerator_a_deep_drafter_may_cost_more_than_its_bytes() -> None:
    shallow, deep = (on_accelerator(plan(facts("drafter", BILLION // 10, layers))) for layers in (4, 32))
    assert judge(shallow).answer == "yes"
    assert judge(deep).answer == "maybe"
    assert deep.cost == (pytest.approx(1 / 80), 1.0)
    assert deep.break_even == (pytest.approx(1 / 80, abs=1e-5), 1.0)


@pytest.mark.parametrize(
    ("memory", "who"),
    [(10 * BILLION, "the target takes 16 GB and cpu has 10 GB"), (17 * BILLION, "the pair takes 18 GB")],
)
def test_what_does_not_fit_is_not_worth_a_try(memory: int, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_plan, "memory_by_device", lambda: {"cpu": memory})
    verdict = judge(plan(facts("drafter", BILLION)))
    assert verdict.answer == "don't"
    assert verdict.reason.startswith(who)


def test_the_memory_of_other_devices_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_plan, "memory_by_device", lambda: {"cuda:0": BILLION, "cpu": 64 * BILLION})
    assert judge(plan(facts("drafter", BILLION))).answer == "maybe"


# What was measured


def test_measurements_overrule_predictions() -> None:
    large = plan(facts("drafter", 8 * BILLION))
    assert judge(measured(large, {"slem": 0.9}, {"slrs": 0.9})).answer == "yes"
    small = plan(facts("drafter", BILLION // 10))
    assert judge(measured(small, {"slem": 0.0}, {"slrs": 0.0})).answer == "don't"


def test_a_drafter_may_pay_for_one_kind_of_text_alone() -> None:
    verdict = judge(measured(plan(facts("drafter", BILLION)), {"slem": 0.8, "tli": 0.5}, {"slrs": 0.02}, step=0.1))
    assert verdict.answer == "yes"
    assert "for greedy text with slem; only" in verdict.reason
    assert verdict.reason.endswith("for sampled text with slrs")


def test_copying_is_no_merit_of_the_drafter() -> None:
    copying = {"lookup": 0.9, "slem": 0.0}
    verdict = judge(measured(plan(facts("drafter", BILLION)), copying, {"lookup": 0.0, "slrs": 0.0}))
    assert verdict.answer == "don't"
    assert verdict.reason.endswith("for greedy text with lookup, which needs no drafter")


def test_a_drafter_that_said_nothing_is_no_use() -> None:
    assert judge(measured(plan(facts("drafter", BILLION)), {}, {})).answer == "don't"


def test_the_worthwhile_come_first_then_the_faster() -> None:
    small, large, huge = (plan(facts(str(size), size * BILLION // 10)) for size in (1, 10, 80))
    poor = measured(plan(facts("poor", BILLION // 100)), {"slem": 0.0}, {"slem": 0.0})
    good, better = (measured(huge, {"slem": acceptance}, {}) for acceptance in (0.8, 0.9))
    assert sorted([poor, huge, large, good, small, better], key=rank) == [better, good, small, large, poor, huge]
