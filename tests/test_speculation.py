"""The simulation of drafting on during verification, and what it says of the claims that were made for it."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import pytest

from benchmarks.speculation import (
    ACCEPTANCES,
    BLOCKS,
    COSTS,
    TARGETS,
    Checked,
    Setting,
    best_parallel,
    best_sequential,
    colour,
    draw,
    rate,
    run,
)
from hsd_cli.planner.speedup import RelativeCosts, parallel_speed_up, speed_up
from tests.breadth import thorough

GRID = list(product(COSTS, ACCEPTANCES))
ROUNDING = 1 - 1e-9


@pytest.mark.parametrize(
    ("setting", "begins"),
    [
        # The first pass is over the last token alone; meanwhile two tokens are drafted, of which the first is a guess.
        (Setting(0.5, 1), [Checked(1, 1), Checked(2, 3), Checked(3, 5)]),
        # The target waits for two tokens.
        (Setting(0.5, 1, first=2), [Checked(2, 3), Checked(3, 5), Checked(4, 7)]),
        # A second target begins with the token drafted at 0.5, the first goes on at 1 with the one drafted then.
        (Setting(0.5, 2), [Checked(1, 1), Checked(1.5, 2), Checked(2, 3), Checked(2.5, 4)]),
        # Blocks of two: the second target begins at 1, with the tokens drafted until then.
        (Setting(0.5, 2, block=2), [Checked(1, 1), Checked(2, 3), Checked(3, 5)]),
        # A step outlasts the pass: the target's own token ends the guesswork.
        (Setting(1.5, 1), [Checked(1, 1)]),
        (Setting(1.5, 1, first=1), [Checked(2.5, 2)]),
    ],
)
def test_what_is_checked_when(setting: Setting, begins: list[Checked]) -> None:
    assert list(run(setting)[: len(begins)]) == begins
    assert setting.cost < 1 or len(run(setting)) == len(begins)


@pytest.mark.parametrize("setting", [Setting(0.3, 1, 2), Setting(0.1, 2, 0, 3), Setting(0.25, 4, 1, 2)])
def test_the_rate_is_the_mean_over_where_the_next_refusal_is(setting: Setting) -> None:
    acceptance, tokens, time = 0.6, 0.0, 0.0
    for refused in range(1, 200):
        probability = acceptance ** (refused - 1) * (1 - acceptance)
        tokens += probability * refused
        time += probability * next(checked.time for checked in run(setting) if checked.tokens >= refused)
    assert rate(setting, acceptance) == pytest.approx(tokens / time)


def test_waiting_for_every_draft_is_speculation_in_turns() -> None:
    """With a drafter so slow that nothing comes of what it does beside a pass."""
    assert rate(Setting(1.01, 1, 3), 0.7) == pytest.approx(speed_up(0.7, 3, RelativeCosts(1.01, [1.0] * 4)))


@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("acceptance", [0.2, 0.7, 0.95])
def test_the_formula_for_one_target_agrees(first: int, acceptance: float) -> None:
    costs = RelativeCosts(0.25, [1.0] * 9)
    assert parallel_speed_up(acceptance, first, costs) == pytest.approx(rate(Setting(0.25, 1, first), acceptance), 1e-3)


@pytest.mark.parametrize("targets", TARGETS)
def test_it_is_never_slower_than_plain_decoding_if_the_target_never_waits(targets: int) -> None:
    assert all(rate(Setting(c, targets, 0, block), a) >= ROUNDING for c, a in GRID for block in BLOCKS)


@thorough
@pytest.mark.parametrize("targets", TARGETS)
def test_it_is_never_slower_than_speculation_in_turns_if_the_target_waits_where_that_pays(targets: int) -> None:
    assert all(best_parallel(c, targets, a) >= ROUNDING * best_sequential(c, a) for c, a in GRID)


def test_without_waiting_it_is_never_slower_than_speculation_in_turns_given_targets_enough() -> None:
    enough = [(c, a) for c, a in GRID if 1 / c <= max(TARGETS) * max(BLOCKS)]
    assert enough
    for cost, acceptance in enough:
        fastest = max(rate(Setting(cost, max(TARGETS), 0, block), acceptance) for block in BLOCKS)
        assert fastest >= ROUNDING * best_sequential(cost, acceptance)


def test_one_target_that_never_waits_is_slower_than_speculation_in_turns_with_a_cheap_drafter() -> None:
    assert rate(Setting(0.02, 1), 0.7) < 0.8 * best_sequential(0.02, 0.7)


def test_more_targets_are_never_slower() -> None:
    for cost, acceptance in GRID:
        rates = [best_parallel(cost, targets, acceptance) for targets in TARGETS]
        assert all(more >= ROUNDING * fewer for fewer, more in pairwise(rates))


def test_colours_go_from_white_to_dark() -> None:
    assert (colour(0.9), colour(1.0), colour(1.6), colour(9.0)) == ("#ffffff", "#ffffff", "#08306b", "#08306b")


def test_the_plot_in_the_docs_is_the_one_that_is_drawn() -> None:
    docs = Path(__file__).parent.parent / "docs" / "parallel.svg"
    assert docs.read_text(encoding="utf-8") == draw(), "run: python -m benchmarks.speculation docs/parallel.svg"
