"""How many threads of the CPU a model's passes take, as the machine is right now.

PyTorch's threads wait for each other several times per layer. Where other programs want the cores, too, each wait takes
a time slice: two threads then write up to a hundred times slower than one. Passes on a quiet machine get as much
processor time as their threads ask for, so that the share they get tells whether fewer are worth a trial.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter, process_time
from typing import TypeVar

import torch

T = TypeVar("T")

SMALL = 64 << 20  # bytes of weights: one thread reads so little about as fast as several
MOST_TOKENS = 256  # of the passes that are compared: not prompts
WINDOW = 0.05  # seconds of passes that are looked at together: less says little
STARVED = 0.75  # of the processor time that was asked for
PATIENCE = 20  # times the seconds that a trial lost, until the next one: trials cost at most a twentieth


class Threads:
    """The threads of one model's passes. ``count`` is their number at present, ``most`` what PyTorch would take.

    Small models begin with one thread, others with one for each core that has nothing to do. Where passes do not get
    the processor time that they ask for, half as many are tried, where they do, twice as many. The quicker ones stay.
    """

    def __init__(
        self,
        weights: int,
        fixed: int | None = None,
        idle: int | None = None,
        clock: Callable[[], tuple[float, float]] = lambda: (perf_counter(), process_time()),
    ) -> None:
        """``weights``: bytes that a pass reads. ``fixed``: the number of threads, if it is not to be found out.
        ``idle``: cores that have nothing to do, if that is known. ``clock``: seconds, and those of the processor."""
        self._clock = clock
        self.most = fixed or torch.get_num_threads()
        idle = _idle_cores() if idle is None else idle
        self.count = fixed or (1 if weights < SMALL else max(1, min(self.most, idle)))
        self._settled = fixed is not None or self.most == 1
        self._seconds: dict[tuple[int, int], float] = {}  # of a pass, by threads and magnitude of its tokens
        self._wall = self._processor = 0.0  # of the passes in this window
        self._spent = 0.0  # seconds on passes
        self._next_trial = 0.0 if idle >= self.most else PATIENCE * WINDOW
        self._trial: int | None = None

    def run(self, work: Callable[[], T], tokens: int) -> T:
        """``work()``, a pass over ``tokens`` tokens, with no more threads than the caller has."""
        allowed, magnitude = torch.get_num_threads(), tokens.bit_length()
        comparable = self._trial is not None and (self.count, magnitude) in self._seconds
        count = min(self._trial if comparable and self._trial else self.count, allowed)
        if count != allowed:
            torch.set_num_threads(count)
        wall, processor = self._clock()
        try:
            result = work()
        finally:
            if count != allowed:
                torch.set_num_threads(allowed)
        if not self._settled and tokens <= MOST_TOKENS:
            wall_end, processor_end = self._clock()
            self._observe(count, magnitude, wall_end - wall, processor_end - processor)
        return result

    def _observe(self, count: int, magnitude: int, wall: float, processor: float) -> None:
        self._spent += wall
        if count == self._trial and (self.count, magnitude) in self._seconds:
            self._judge(count, wall, self._seconds[self.count, magnitude])
            return
        usual = self._seconds.setdefault((count, magnitude), wall)
        self._seconds[count, magnitude] = usual + 0.3 * (wall - usual)
        self._wall += wall
        self._processor += processor
        if self._wall > WINDOW:
            starved = self._processor < STARVED * count * self._wall
            self._wall = self._processor = 0.0
            if self._spent >= self._next_trial:
                other = max(1, count // 2) if starved else min(2 * count, self.most)
                self._trial = None if other == count else other

    def _judge(self, count: int, wall: float, usual: float) -> None:
        self._trial = None
        if wall < usual:
            self.count = count
            self._seconds.clear()
        else:
            self._next_trial = self._spent + PATIENCE * (wall - usual)


def _idle_cores() -> int:
    """Roughly: over the last minute. All of them where the system does not tell."""
    cores = os.cpu_count() or 1
    try:
        return round(cores - os.getloadavg()[0])
    except (AttributeError, OSError):
        return cores
