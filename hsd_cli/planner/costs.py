"""What things cost in this run: measured while it runs, typical values of what was seen lately."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from statistics import median

RECENT = 15  # observations whose median counts: older ones were of a shorter text, single ones are hiccups
# What checking one more token adds to a pass, as a share of it: before it is known, and at most after one observation.
MARGINAL_GUESS, MOST_AT_FIRST = 0.1, 0.3


class Costs:
    """Seconds of a target pass by its number of tokens, and of a drafter step by algorithm.

    ``step_guess`` is the drafter's cost as a share of the target's, from their sizes; ``marginal_guess`` what checking
    one more token adds to a pass, as a share of it.
    """

    def __init__(self, step_guess: float, marginal_guess: float = MARGINAL_GUESS) -> None:
        self._passes: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._steps: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        # Asked for far more often than they change.
        self._typical_pass: dict[int, float] = {}
        self._typical_step: dict[str, float] = {}
        self._step_guess = step_guess
        self._marginal_guess = marginal_guess

    def observe_pass(self, tokens: int, seconds: float) -> None:
        seen = self._passes[tokens]
        seen.append(seconds)
        # The first pass of all may have warmed something up.
        self._typical_pass[tokens] = min(seen) if tokens == 1 and len(seen) == 2 else median(seen)

    def observe_draft(self, algorithm: str, steps: int, seconds: float) -> None:
        self._steps[algorithm].append(seconds / steps)
        self._typical_step[algorithm] = median(self._steps[algorithm])

    def step(self, algorithm: str) -> float:
        """Seconds of one drafter step with its share of all that drafting takes: reading, translating, projecting."""
        seconds = self._typical_step.get(algorithm)
        return self._step_guess * self.verification(1) if seconds is None else seconds

    def verification(self, tokens: int) -> float:
        """Seconds of a pass over ``tokens``: as observed, else by the nearest observed one and the slope.

        1.0 before anything was observed: any unit will do, since only ratios count.
        """
        if tokens in self._passes:
            return self._typical(tokens)
        if not self._passes:
            return 1.0
        nearest = min(self._passes, key=lambda known: (abs(known - tokens), known))
        seconds = self._typical(nearest)
        return max(seconds + (tokens - nearest) * self.marginal, seconds / 2)

    def _typical(self, tokens: int) -> float:
        seconds, plain = self._typical_pass[tokens], self._typical_pass.get(1)
        if tokens > 1 and plain and len(self._passes[tokens]) == 1:
            # The first pass of its kind may have warmed something up.
            return min(seconds, plain * (1 + MOST_AT_FIRST * (tokens - 1)))
        return seconds

    def iteration(self, algorithm: str, drafted: float, steps: float) -> float:
        """Seconds of drafting and checking; ``drafted`` and ``steps`` may be means."""
        few = int(drafted)
        shorter, longer = self.verification(few + 1), self.verification(few + 2)
        return shorter + (drafted - few) * (longer - shorter) + steps * self.step(algorithm)

    @property
    def marginal(self) -> float:
        """Seconds that one more token adds to a pass, between the shortest and the longest that were observed.

        Passes over one token run other kernels, so they are left out where two others are known.
        """
        known = [(tokens, self._typical(tokens)) for tokens in sorted(self._passes)]
        several = known[1:] if len(known) > 2 and known[0][0] == 1 else known
        if len(several) < 2:
            return self._marginal_guess * (known[0][1] if known else 1.0)
        (few, fast), (many, slow) = several[0], several[-1]
        return max(0.0, (slow - fast) / (many - few))


class SharedCosts(Costs):
    """The same for each of several texts that share their passes: what they take if all do as one does.

    A text that counted just what it adds itself would draft as if the others were not waiting. ``passes`` are those of
    all together, by all their tokens, and somebody else observes them; ``texts`` is how many there are now.
    """

    def __init__(self, step_guess: float, passes: Costs, texts: Callable[[], int]) -> None:
        super().__init__(step_guess)
        self._shared = passes
        self._texts = texts

    def observe_pass(self, tokens: int, seconds: float) -> None:
        pass

    def verification(self, tokens: int) -> float:
        return self._shared.verification(tokens * self._texts())

    @property
    def marginal(self) -> float:
        return self._shared.marginal * self._texts()
