"""The sums of `hsd bench`, on samples that are made up."""

from __future__ import annotations

import pytest

from hsd_cli.bench.report import by_repeat, efficiency, figures, places, results, speed, spread
from hsd_cli.bench.runner import rotated
from hsd_cli.ui.bench_report import Costs, Place, Sample, Spread

COSTS = Costs(target_passes=(1.0, 1.25, 1.5), drafter_step=0.125)


def sample(
    *iterations: tuple[int, int],
    seconds: float,
    repeat: int = 0,
    steps: int = 0,
    phases: dict[str, float] | None = None,
    passes: dict[str, float] | None = None,
    memory: int | None = None,
) -> Sample:
    """One token of each iteration is the target's own. A second passes until the first tokens."""
    return Sample(
        prompt=0,
        repeat=repeat,
        seconds=seconds + 1.0,
        first_seconds=1.0,
        decode_seconds=seconds,
        tokens=sum(1 + accepted for _, accepted in iterations),
        first_tokens=1 + iterations[0][1],
        iterations=iterations,
        steps=steps,
        phases=phases,
        passes=passes,
        peak_memory=memory,
    )


PLAIN = sample((0, 0), (0, 0), (0, 0), seconds=2.0)
DRAFTED = sample((2, 2), (2, 1), (1, 1), seconds=4.0, steps=4, phases={"draft": 1.0, "verify": 2.0, "translate": 0.5})


def test_speed_counts_what_is_written_after_the_first_iteration() -> None:
    assert speed([PLAIN]) == 1.0
    assert speed([DRAFTED]) == 1.0
    assert speed([PLAIN, DRAFTED]) == 6 / 6.0
    assert speed([sample((0, 0), (0, 0), seconds=0.25)]) == 4.0


def test_speed_ups_are_of_the_same_repeat() -> None:
    slow = [sample((0, 0), (0, 0), seconds=4.0, repeat=1)]
    ours = [[sample((0, 0), (1, 1), seconds=2.0)], [sample((0, 0), (1, 1), seconds=2.0, repeat=1)]]
    found = figures(ours, [[PLAIN], slow], COSTS, (1, 1))
    assert (found.speed_up.lowest, found.speed_up.highest) == (1.0, 4.0)
    assert found.tokens_per_second.median == 1.0


def test_zero_overhead_is_the_cost_of_the_passes_alone() -> None:
    # Without the first iteration: passes over 3 and 2 tokens, and four steps.
    bare = 1.5 + 1.25 + 4 * 0.125
    found = efficiency([[DRAFTED]], COSTS)
    assert found is not None
    assert found.median == bare / 4.0
    perfect = efficiency([[sample((0, 0), (2, 0), seconds=1.75, steps=2)]], COSTS)
    assert perfect is not None
    assert perfect.median == 1.0


def test_efficiency_is_left_out_where_a_pass_was_not_timed() -> None:
    assert efficiency([[sample((0, 0), (3, 0), seconds=1.0)]], COSTS) is None


def test_plain_decoding_needs_no_drafter_to_be_efficient() -> None:
    found = efficiency([[PLAIN]], Costs((1.0,), None))
    assert found is not None
    assert found.median == 1.0


def test_acceptance_is_counted_over_all_and_by_place() -> None:
    found = figures([[DRAFTED]], [[PLAIN]], COSTS, (1, 1))
    assert found.acceptance == 4 / 5
    assert found.acceptance_by_place == (Place(3, 3), Place(2, 1))
    assert found.tokens_per_iteration == 7 / 3
    assert places([(0, 0)]) == ()
    assert figures([[PLAIN]], [[PLAIN]], COSTS, (1, 1)).acceptance is None


def test_overhead_is_what_is_in_no_phase() -> None:
    found = figures([[DRAFTED]], [[PLAIN]], COSTS, (1, 1))
    assert found.split == {"draft": 0.25, "verify": 0.5, "translate": 0.125, "overhead": 0.125}
    assert figures([[PLAIN]], [[PLAIN]], COSTS, (1, 1)).split is None


def test_an_iteration_is_taken_apart_where_passes_were_timed() -> None:
    phases = {"draft": 1.0, "verify": 2.0, "translate": 0.5}
    timed = sample((2, 2), (2, 1), (1, 1), seconds=4.0, phases=phases, passes={"target": 1.5, "drafter": 0.75})
    expected = {
        "target": 0.75,
        "checking": 0.25,
        "drafter": 0.375,
        "choosing": 0.125,
        "translation": 0.25,
        "rest": 0.25,
    }
    assert figures([[timed]], [[PLAIN]], COSTS, (1, 1)).profile == expected
    assert figures([[timed, DRAFTED]], [[PLAIN]], COSTS, (1, 1)).profile is None


def test_bandwidth_is_of_every_pass_while_decoding() -> None:
    assert figures([[DRAFTED]], [[PLAIN]], COSTS, (100, 10)).bandwidth == (2 * 100 + 4 * 10) / 4.0


def test_memory_is_the_most_of_all_samples() -> None:
    repeats = [[sample((0, 0), (0, 0), seconds=1.0, memory=memory) for memory in (5, 9, 7)]]
    assert figures(repeats, [[PLAIN]], COSTS, (1, 1)).peak_memory == 9


def test_spreads_have_quartiles() -> None:
    assert spread([3.0, 1.0, 2.0, 5.0, 4.0]) == Spread(3.0, 1.0, 2.0, 4.0, 5.0)
    assert spread([2.0]) == Spread(2.0, 2.0, 2.0, 2.0, 2.0)


def test_results_keep_their_samples() -> None:
    rounds = [{"ar": PLAIN, "slem": DRAFTED}, {"ar": PLAIN, "slem": DRAFTED}]
    plain, drafted = results(rounds, COSTS, (1, 1))
    assert (plain.contender, plain.samples) == ("ar", (PLAIN, PLAIN))
    assert drafted.figures.speed_up.median == 1.0
    assert by_repeat([PLAIN, sample((0, 0), seconds=1.0, repeat=1), PLAIN])[0] == [PLAIN, PLAIN]


@pytest.mark.parametrize(("by", "order"), [(0, "abc"), (1, "bca"), (5, "cab")])
def test_another_contender_comes_first_each_time(by: int, order: str) -> None:
    contenders = {name: lambda _: PLAIN for name in "abc"}
    assert "".join(rotated(contenders, by)) == order
