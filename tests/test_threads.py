"""How many threads a pass takes: all on a quiet machine, few where others want the cores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hsd_cli.runtime.threads import PATIENCE, SMALL, Threads


class Machine:
    """Two cores, and the seconds of a pass by its threads. Shared cores give each thread half of its time."""

    def __init__(self, one: float, two: float, busy: bool) -> None:
        self.seconds, self.busy = {1: one, 2: two}, busy
        self.taken: list[int] = []
        self._wall = self._processor = 0.0

    def clock(self) -> tuple[float, float]:
        return self._wall, self._processor

    def work(self) -> None:
        count = torch.get_num_threads()
        self.taken.append(count)
        self._wall += self.seconds[count]
        self._processor += self.seconds[count] * count * (0.5 if self.busy else 0.97)

    def threads(self, weights: int, fixed: int | None = None, idle: int = 2) -> Threads:
        return Threads(weights, fixed, idle=idle, clock=self.clock)

    def passes(self, threads: Threads, number: int, tokens: int = 1) -> list[int]:
        """The threads of each of the next passes."""
        self.taken.clear()
        for _ in range(number):
            threads.run(self.work, tokens)
        return list(self.taken)


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2  # what passes take is no one else's concern
    torch.set_num_threads(before)


def test_a_large_model_on_a_quiet_machine_takes_all_and_tries_nothing() -> None:
    machine = Machine(one=0.2, two=0.1, busy=False)
    assert set(machine.passes(machine.threads(SMALL), 500)) == {2}


def test_a_large_model_on_a_busy_machine_goes_down_to_one_after_a_pass() -> None:
    machine = Machine(one=0.1, two=0.8, busy=True)
    assert machine.passes(machine.threads(SMALL), 50) == [2, *[1] * 49]


def test_it_begins_with_as_many_as_there_are_idle_cores() -> None:
    machine = Machine(one=0.1, two=0.8, busy=True)
    assert set(machine.passes(machine.threads(SMALL, idle=1), 50)) == {1}


def test_all_are_taken_again_once_the_machine_is_quiet() -> None:
    machine = Machine(one=0.1, two=0.8, busy=True)
    threads = machine.threads(SMALL)
    machine.passes(threads, 50)
    machine.busy, machine.seconds[2] = False, 0.05
    assert machine.passes(threads, 50)[-1] == 2


def test_fewer_that_are_no_quicker_are_given_up() -> None:
    machine = Machine(one=0.2, two=0.1, busy=True)
    taken = machine.passes(machine.threads(SMALL), 300)
    assert taken[-2:].count(2)
    assert 0 < taken.count(1) <= 300 / PATIENCE


def test_a_small_model_begins_with_one_and_takes_more_where_that_is_quicker() -> None:
    machine = Machine(one=0.004, two=0.003, busy=False)
    taken = machine.passes(machine.threads(SMALL - 1), 100)
    assert taken[0] == 1
    assert set(taken[20:]) == {2}


def test_a_small_model_on_a_busy_machine_keeps_to_one() -> None:
    machine = Machine(one=0.006, two=0.4, busy=True)
    assert set(machine.passes(machine.threads(SMALL - 1), 1000)) == {1}


def test_trials_that_lose_cost_a_twentieth_of_the_time_at_most() -> None:
    machine = Machine(one=0.01, two=0.4, busy=False)  # one other program: a single thread gets all that it asks for
    taken = machine.passes(machine.threads(SMALL - 1), 20_000)
    lost = taken.count(2) * (0.4 - 0.01)
    assert 0 < lost < sum(machine.seconds[count] for count in taken) / PATIENCE + 0.4


def test_a_number_that_is_asked_for_is_kept() -> None:
    machine = Machine(one=0.006, two=0.4, busy=True)
    assert set(machine.passes(machine.threads(SMALL, fixed=2), 50)) == {2}


def test_no_pass_takes_more_threads_than_its_caller_has() -> None:
    machine = Machine(one=0.1, two=0.05, busy=False)
    threads = machine.threads(SMALL)
    torch.set_num_threads(1)
    assert set(machine.passes(threads, 10)) == {1}
    torch.set_num_threads(2)


def test_a_caller_with_fewer_threads_does_not_judge_what_was_never_compared() -> None:
    machine = Machine(one=0.1, two=0.8, busy=True)
    threads = machine.threads(SMALL)
    machine.passes(threads, 1, tokens=1)  # one thread is to be tried next
    torch.set_num_threads(1)
    assert machine.passes(threads, 1, tokens=200) == [1]
    torch.set_num_threads(2)
    assert threads.count == 2


def test_passes_over_other_numbers_of_tokens_are_not_compared() -> None:
    machine = Machine(one=0.1, two=0.8, busy=True)
    threads = machine.threads(SMALL)
    machine.passes(threads, 1, tokens=1)
    assert machine.passes(threads, 1, tokens=200) == [2]
    assert machine.passes(threads, 1, tokens=1) == [1]
