"""How far to draft beside the target: as long as it is busy; what is learned of drafts is what became of them."""

from __future__ import annotations

import pytest
import torch

from hsd_cli.planner.costs import Costs
from hsd_cli.planner.pace import Pace
from hsd_cli.planner.rhythm import FIRST_DRAFTS, PAUSE, DraftingRhythm
from hsd_cli.runtime.clock import PhaseClock

SURE = torch.tensor(0.9)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in a list to be changed."""
    time = [0.0]
    monkeypatch.setattr("hsd_cli.planner.rhythm.perf_counter", lambda: time[0])
    monkeypatch.setattr("hsd_cli.runtime.clock.perf_counter", lambda: time[0])
    return time


def costs_of(step: float, marginal: float = 0.0) -> Costs:
    """In target passes."""
    costs = Costs(step)
    for _ in range(3):
        for tokens in (1, 2, 9):
            costs.observe_pass(tokens, 1.0 + marginal * (tokens - 1))
        costs.observe_draft("x", 1, step)
    return costs


def rhythm_of(
    step: float, *, fixed_length: bool = False, marginal: float = 0.0, drafts: int = 0, targets: int = 1
) -> DraftingRhythm:
    rhythm = DraftingRhythm("x", costs_of(step, marginal), PhaseClock(), fixed_length, targets)
    for _ in range(drafts):
        rhythm.begin(0)
    return rhythm


def steps_beside_a_pass(rhythm: DraftingRhythm, now: list[float], step: float, interrupted_at: float = 9.0) -> int:
    rhythm.begin(1)
    steps = 0
    while True:
        steps += 1
        now[0] += step
        if now[0] >= interrupted_at:
            rhythm.interrupt()
        if not rhythm.go_on(SURE):
            return steps


@pytest.mark.parametrize("fixed_length", [True, False])
@pytest.mark.parametrize(("step", "steps"), [(0.24, 4), (0.26, 3), (0.6, 1), (2.0, 1)])
def test_beside_a_pass_no_step_is_begun_that_would_outlast_it(
    now: list[float], step: float, steps: int, fixed_length: bool
) -> None:
    rhythm = rhythm_of(step, fixed_length=fixed_length)
    assert steps_beside_a_pass(rhythm, now, step) == steps


def test_several_targets_begin_at_even_distances(now: list[float]) -> None:
    assert steps_beside_a_pass(rhythm_of(0.12, targets=2), now, 0.12) == 4


def test_the_end_of_the_pass_ends_the_draft(now: list[float]) -> None:
    assert steps_beside_a_pass(rhythm_of(0.1), now, 0.1, interrupted_at=0.35) == 4


def test_a_draft_that_checking_makes_dear_is_short(now: list[float]) -> None:
    assert steps_beside_a_pass(rhythm_of(0.05, marginal=0.5), now, 0.05) < 5


def test_while_the_target_waits_time_does_not_end_a_draft_of_fixed_length() -> None:
    rhythm = rhythm_of(0.5, fixed_length=True)
    rhythm.begin(0)
    assert all(rhythm.go_on(SURE) for _ in range(9))


@pytest.mark.parametrize(("step", "pays"), [(0.02, True), (0.1, True), (0.6, False), (1.5, False)])
def test_the_target_waits_for_cheap_drafts(step: float, pays: bool) -> None:
    rhythm = rhythm_of(step, drafts=FIRST_DRAFTS)
    assert rhythm.waits() == pays
    assert rhythm_of(step).waits()  # an unknown drafter is tried
    assert rhythm_of(step, fixed_length=True, drafts=FIRST_DRAFTS).waits()


def test_a_slow_drafter_is_tried_now_and_then() -> None:
    rhythm = rhythm_of(1.5, drafts=FIRST_DRAFTS)
    assert rhythm_of(0.9, drafts=FIRST_DRAFTS).keeps_up(1)
    kept_up = []
    for _ in range(2 * PAUSE + 2):
        kept_up.append(rhythm.keeps_up(1))
        if kept_up[-1]:
            rhythm.begin(1)
        rhythm.settle(1, None)
    assert [place for place, kept in enumerate(kept_up) if kept] == [PAUSE, 2 * PAUSE]


def drafted(rhythm: DraftingRhythm, width: int, steps: int, learned: int | None = None) -> None:
    """A draft of so many steps; ``learned``: how many of the one before the text confirms, as it is read now."""
    rhythm.begin(width)
    if learned is not None:
        rhythm.learn(learned)
    for _ in range(steps):
        rhythm.go_on(SURE)


def acceptance_after(*drafts: tuple[int, int]) -> float:
    """As `Pace` has it where each draft of so many steps had so many confirmed."""
    pace = Pace(costs_of(0.01))
    for steps, confirmed in drafts:
        pace.begin("x", 1.0)
        for _ in range(steps):
            pace.go_on(SURE)
        pace.begin("x", 1.0)
        pace.learn(confirmed)
    return pace.acceptance


def acceptance(rhythm: DraftingRhythm) -> float:
    return rhythm._pace.acceptance


def test_what_is_learned_of_a_guess_that_came_true() -> None:
    rhythm = rhythm_of(0.01)
    drafted(rhythm, 0, 3)
    drafted(rhythm, 4, 2, learned=3)
    assert acceptance(rhythm) == acceptance_after()  # not yet
    rhythm.settle(4, upheld=True)
    assert acceptance(rhythm) == acceptance_after((3, 3))
    drafted(rhythm, 2, 5, learned=2)
    rhythm.settle(3, upheld=True)
    assert acceptance(rhythm) == pytest.approx(acceptance_after((3, 3), (2, 2)))


def test_what_is_learned_of_a_guess_that_did_not() -> None:
    rhythm = rhythm_of(0.01)
    drafted(rhythm, 0, 3)
    drafted(rhythm, 4, 1, learned=3)
    rhythm.settle(2, upheld=False)
    assert acceptance(rhythm) == acceptance_after()
    drafted(rhythm, 0, 3, learned=2)  # of the first draft; nothing became of the second
    assert acceptance(rhythm) == acceptance_after((3, 2))


def test_behind_nothing_a_guess_says_what_became_of_the_draft_before() -> None:
    rhythm = rhythm_of(0.01)
    drafted(rhythm, 0, 3)
    drafted(rhythm, 4, 2, learned=3)
    rhythm.settle(1, upheld=False)
    drafted(rhythm, 1, 2, learned=0)  # the target goes on at once, over its own token
    rhythm.settle(1, upheld=True)
    assert acceptance(rhythm) == acceptance_after((3, 0))


def test_nothing_is_learned_twice() -> None:
    rhythm = rhythm_of(0.01)
    drafted(rhythm, 0, 3)
    drafted(rhythm, 4, 2, learned=3)
    rhythm.settle(4, upheld=True)
    drafted(rhythm, 2, 2)  # behind a text that says nothing of the draft before
    rhythm.settle(2, upheld=True)
    assert acceptance(rhythm) == acceptance_after((3, 3))


def test_of_several_guesses_in_a_row_the_oldest_is_heard_of_first() -> None:
    rhythm = rhythm_of(0.01, targets=3)
    drafted(rhythm, 0, 3)
    drafted(rhythm, 4, 2, learned=3)
    drafted(rhythm, 3, 5, learned=2)  # behind the one before, which is being checked as well
    rhythm.settle(4, upheld=True)
    assert acceptance(rhythm) == acceptance_after((3, 3))
    rhythm.settle(3, upheld=True)
    assert acceptance(rhythm) == pytest.approx(acceptance_after((3, 3), (2, 2)))


def test_of_a_wrong_guess_and_what_followed_nothing_is_learned() -> None:
    rhythm = rhythm_of(0.01, targets=3)
    drafted(rhythm, 0, 3)
    drafted(rhythm, 4, 2, learned=3)
    drafted(rhythm, 3, 5, learned=2)
    rhythm.settle(2, upheld=False)
    drafted(rhythm, 0, 3, learned=3)  # of the first draft: the second has two steps
    assert acceptance(rhythm) == acceptance_after((3, 3))
