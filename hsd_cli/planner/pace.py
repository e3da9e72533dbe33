"""How far to draft: on while one more token is expected to bring more time than it costs."""

from __future__ import annotations

from collections import defaultdict, deque
from itertools import takewhile
from math import isnan

import torch

from hsd_cli.planner.costs import Costs
from hsd_cli.runtime.host import to_host

BUCKETS = 10
TRUST = 0.2  # in the drafter's own probability, before it was compared with what came of it
PRIOR_WEIGHT = 4.0  # observations that the first forecast of acceptance is worth
DRAFTS = 16  # that may yet be heard of
MEMORY = 0.98  # of earlier observations, per draft: texts change


class Calibration:
    """How often a drafted token is confirmed, given that those before it were, by the drafter's probability of it.

    At first the forecast lies between that probability (as it would be for greedy text) and the mean of all (where
    acceptance has little to do with it).
    """

    def __init__(self) -> None:
        self._confirmed = [0.0] * BUCKETS
        self._seen = [0.0] * BUCKETS

    def expected(self, confidence: float) -> float:
        bucket = self._bucket(confidence)
        prior = TRUST * confidence + (1 - TRUST) * self.mean
        return (prior * PRIOR_WEIGHT + self._confirmed[bucket]) / (PRIOR_WEIGHT + self._seen[bucket])

    @property
    def mean(self) -> float:
        """The same for a token that is not drawn yet."""
        return (0.6 * PRIOR_WEIGHT + sum(self._confirmed)) / (PRIOR_WEIGHT + sum(self._seen))

    def learn(self, confidences: list[float], confirmed: int) -> None:
        self._confirmed = [MEMORY * value for value in self._confirmed]
        self._seen = [MEMORY * value for value in self._seen]
        for place, confidence in enumerate(confidences[: confirmed + 1]):
            self._seen[self._bucket(confidence)] += 1
            self._confirmed[self._bucket(confidence)] += place < confirmed

    @staticmethod
    def _bucket(confidence: float) -> int:
        return min(int(confidence * BUCKETS), BUCKETS - 1)


class Pace:
    """Ends a draft where the expected gain of one more drafter step falls below its measured cost.

    A token is worth the seconds that it takes at the best rate known; a step costs itself and what it adds to the
    verification. This maximises tokens per second (Dinkelbach 1967: at the optimum the last step pays just the rate
    of the whole). With ``fixed_length`` it only watches. ``calibrations``, by algorithm, may be of earlier texts.
    """

    def __init__(
        self, costs: Costs, fixed_length: bool = False, calibrations: defaultdict[str, Calibration] | None = None
    ) -> None:
        self._costs = costs
        self._fixed_length = fixed_length
        self._calibrations = defaultdict(Calibration) if calibrations is None else calibrations
        self._current = Calibration()
        self._confidences: list[torch.Tensor] = []
        self._planned = False
        self._drafts = deque([(self._current, self._confidences)] * 2, maxlen=DRAFTS)
        self._reach = 1.0
        self._worth = 0.0
        self._price = 0.0

    def begin(self, algorithm: str, seconds_per_token: float, waited_for: bool = True) -> None:
        """Called before each draft, with what a token takes now. Drafting costs nothing if nobody waits."""
        self._current, self._confidences = self._calibrations[algorithm], []
        self._drafts.append((self._current, self._confidences))
        self._planned = False
        self._reach = 1.0
        self._worth = seconds_per_token
        self._price = (self._costs.step(algorithm) if waited_for else 0.0) + self._costs.marginal

    def plan(self, most: int) -> int:
        """As many as pay if each is confirmed as often as most are; what they say of themselves is learned later."""
        self._planned = True
        if self._fixed_length:
            return most
        steps = 1
        while steps < most and self._current.mean ** (steps + 1) * self._worth > self._price:
            steps += 1
        return steps

    def go_on(self, confidence: torch.Tensor) -> bool:
        if not self._planned:
            sure = float(confidence)
            if isnan(sure):  # the drafter's numbers are not sound: no reason to ask it for more
                return False
            self._reach *= self._current.expected(sure)
        self._confidences.append(confidence)
        return self._planned or self._fixed_length or self._reach * self._current.mean * self._worth > self._price

    def withdraw(self) -> None:
        """Nothing will become of the last draft: the next to be heard of is the one before it."""
        self._drafts.pop()
        self._current, self._confidences = self._drafts[-1]

    @property
    def acceptance(self) -> float:
        """Of one drafted token, as far as is known."""
        return self._current.mean

    @property
    def steps(self) -> int:
        """Drafter steps of the current draft."""
        return len(self._confidences)

    def learn(self, confirmed: int, back: int = 1) -> None:
        """A drafter hears of its last draft's fate when it is asked for the next one: it is one draft ``back``."""
        calibration, confidences = self._drafts[-1 - back]
        values: list[float] = to_host(torch.stack(confidences)) if confidences else []
        calibration.learn(list(takewhile(lambda sure: not isnan(sure), values)), confirmed)
