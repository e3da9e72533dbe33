"""The formula behind `hsd plan`, against its definition."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsd_cli.planner.speedup import LONGEST, RelativeCosts, break_even, flat_costs, predict, speed_up

ACCEPTANCE = st.floats(0, 0.999)
DRAFT = st.floats(0.01, 3)
SEVERAL = st.floats(1, 3)
LOOKAHEAD = st.integers(1, LONGEST)


@given(ACCEPTANCE, LOOKAHEAD, DRAFT, SEVERAL)
def test_it_is_the_closed_form_that_the_report_states(a: float, g: int, c: float, v: float) -> None:
    assert speed_up(a, g, flat_costs(c, v)) == pytest.approx((1 - a ** (g + 1)) / ((1 - a) * (g * c + v)))


@given(ACCEPTANCE, st.integers(1, 5), DRAFT, st.floats(0.01, 1))
def test_it_is_the_expectation_over_every_outcome_of_an_iteration(a: float, g: int, c: float, share: float) -> None:
    tokens = sum(
        _probability(outcome, a) * (1 + [*outcome, False].index(False)) for outcome in product([True, False], repeat=g)
    )
    costs = RelativeCosts(c, [1 + 0.1 * extra for extra in range(g + 1)])
    seconds = g * c + 1 + 0.1 * g
    expected = (share * tokens + 1 - share) / (share * seconds + 1 - share)
    assert speed_up(a, g, costs, share) == pytest.approx(expected)


def _probability(outcome: tuple[bool, ...], a: float) -> float:
    result = 1.0
    for accepted in outcome:
        result *= a if accepted else 1 - a
    return result


@given(ACCEPTANCE, DRAFT, SEVERAL)
def test_no_lookahead_beats_the_predicted_one(a: float, c: float, v: float) -> None:
    costs = flat_costs(c, v)
    best = predict(a, costs)
    assert best.speed_up == speed_up(a, best.lookahead, costs)
    assert all(best.speed_up >= speed_up(a, g, costs) for g in range(1, LONGEST + 1))


@given(st.floats(0.01, 0.95))
def test_with_free_checks_it_breaks_even_where_acceptance_is_the_cost(c: float) -> None:
    assert break_even(flat_costs(c, 1.0)) == pytest.approx(c, abs=1e-5)


@given(DRAFT, SEVERAL)
def test_around_the_break_even_gain_turns_into_loss(c: float, v: float) -> None:
    costs = flat_costs(c, v)
    even = break_even(costs)
    if even is None:
        assert predict(1.0, costs).speed_up < 1
    else:
        assert predict(min(even + 1e-4, 1.0), costs).speed_up >= 1
        assert even < 1e-4 or predict(even - 1e-4, costs).speed_up < 1


def test_a_drafter_as_slow_as_its_target_never_pays() -> None:
    assert break_even(flat_costs(1.0, 1.2)) is None
