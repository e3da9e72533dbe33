"""How far to draft where the drafter works beside the target: for as long as the target is busy, and as it pays."""

from __future__ import annotations

from collections import deque
from time import perf_counter

import torch

from hsd_cli.planner.costs import Costs
from hsd_cli.planner.pace import Pace
from hsd_cli.planner.speedup import LONGEST, RelativeCosts, parallel_speed_up
from hsd_cli.runtime.clock import PhaseClock

MEMORY = 0.95  # of earlier iterations, per iteration
FIRST_DRAFTS = 3  # are made whatever they are expected to cost: then it is known
RECONSIDERED = 8  # iterations until it is worked out again whether waiting pays: that takes a while itself
PAUSE = 24  # iterations without a draft until one is tried again


class DraftingRhythm:
    """A ``Rhythm`` (``decoding/parallel.py``) for drafts of ``algorithm``.

    While the target waits, a draft ends where ``Pace`` says so. Beside a pass its steps cost nothing: it ends where
    another step would outlast the pass, and where checking another token costs more than it brings. A drafter whose
    steps take longer than passes is tried now and then. With ``fixed_length`` only the end of the pass counts, and the
    target always waits. ``clock`` is the drafter's.

    Of several ``targets`` another one begins with each draft, so that these take an even share of a pass.
    """

    def __init__(self, algorithm: str, costs: Costs, clock: PhaseClock, fixed_length: bool, targets: int = 1) -> None:
        self._algorithm = algorithm
        self._costs = costs
        self.clock = clock
        self._fixed_length = fixed_length
        self._targets = targets
        self._pace = Pace(costs, fixed_length)
        self._width = 0
        self._ends = self._step = self._drafting = 0.0
        self._drafts = self._undrafted = self._settlings = self._reconsidered = 0
        self._waiting_pays = True
        self._interrupted = False
        # Of each draft beside a pass whose fate is open, the oldest first: what it says of the one before.
        self._confirmed: deque[int | None] = deque()
        self._tokens = self._seconds = 0.0
        self._settled: float | None = None

    def waits(self) -> bool:
        if self._settlings >= self._reconsidered:
            self._reconsidered = self._settlings + RECONSIDERED
            self._waiting_pays = self._does_waiting_pay()
        return self._tries or self._waiting_pays

    def _does_waiting_pay(self) -> bool:
        plain = self._costs.verification(1)
        passes = [self._costs.verification(width) / plain for width in range(1, LONGEST + 2)]
        costs = RelativeCosts(self._costs.step(self._algorithm) / plain, passes)
        at_once, *waited = (parallel_speed_up(self._pace.acceptance, first, costs) for first in range(LONGEST + 1))
        return max(waited) > at_once

    def keeps_up(self, width: int) -> bool:
        return self._tries or self._costs.step(self._algorithm) <= self._costs.verification(width)

    @property
    def _tries(self) -> bool:
        """Whether to draft whatever is known of costs."""
        return self._fixed_length or self._drafts < FIRST_DRAFTS or self._undrafted >= PAUSE

    def begin(self, width: int) -> None:
        self._observe_draft()
        self._undrafted = 0
        self._width = width
        self._interrupted = False
        if width:
            self._confirmed.append(None)
        self._step = self._costs.step(self._algorithm)
        self._ends = perf_counter() + self._costs.verification(width) / self._targets
        at_most = self._costs.verification(1)
        worth = min(at_most, self._seconds / self._tokens) if self._tokens else at_most
        self._pace.begin(self._algorithm, worth, waited_for=width == 0)

    def interrupt(self) -> None:
        self._interrupted = True

    def observe_pass(self, width: int, seconds: float) -> None:
        self._costs.observe_pass(width, seconds)

    def settle(self, tokens: int, upheld: bool | None) -> None:
        self._settlings += 1
        self._undrafted += 1
        if upheld:
            confirmed = self._confirmed.popleft()
            if confirmed is not None:
                self._pace.learn(confirmed, back=len(self._confirmed) + 1)
        elif upheld is False:
            for _ in self._confirmed:
                self._pace.withdraw()
            self._confirmed.clear()
        now = perf_counter()
        if self._settled is not None:
            self._tokens = MEMORY * self._tokens + tokens
            self._seconds = MEMORY * self._seconds + now - self._settled
        self._settled = now

    # --- the drafter's patience ---

    def plan(self, most: int) -> int:
        return most if self._width else self._pace.plan(most)

    def go_on(self, confidence: torch.Tensor) -> bool:
        return self._pace.go_on(confidence) and (self._width == 0 or self._has_time())

    def learn(self, confirmed: int) -> None:
        """What the guess behind which a draft is made says of the one before, is true if the guess is."""
        if self._width:
            self._confirmed[-1] = confirmed
        else:
            self._pace.learn(confirmed)

    def _has_time(self) -> bool:
        """Whether another step ends before the pass does, going by what passes and steps take."""
        return not self._interrupted and perf_counter() + self._step <= self._ends

    def _observe_draft(self) -> None:
        """Of the last one; the first one's time is not typical."""
        seconds = self.clock.seconds["draft"] + self.clock.seconds["translate"]
        if self._drafts > 1 and self._pace.steps:
            self._costs.observe_draft(self._algorithm, self._pace.steps, seconds - self._drafting)
        self._drafts += 1
        self._drafting = seconds
