"""The arms of the bandit: what each way to draft has brought so far."""

from __future__ import annotations

from math import sqrt

from hsd_cli.planner.speedup import tokens_per_iteration

WELL_TRIED = 6  # iterations: hoping on for ever would cost more than it can find
FIRST_COPY = 4  # tokens
MEMORY = 0.97  # of an arm's earlier iterations, per iteration: texts change


class ModelArm:
    """An algorithm with a drafter model: decaying means of what its iterations brought and took.

    It starts as if ``weight`` iterations with ``drafted`` proposals and as many drafter steps had brought ``tokens``.
    """

    def __init__(self, tokens: float, drafted: float, weight: float = 1.0) -> None:
        self.trials = 0
        self.tokens = tokens
        self.drafted = drafted
        self.steps = drafted
        self._weight = weight
        self._squares = tokens**2 + 1.0

    def learn(self, tokens: int, drafted: int, steps: int) -> None:
        self.trials += 1
        self._weight = MEMORY * self._weight + 1
        self.tokens += (tokens - self.tokens) / self._weight
        self.drafted += (drafted - self.drafted) / self._weight
        self.steps += (steps - self.steps) / self._weight
        self._squares += (tokens**2 - self._squares) / self._weight

    def forget(self) -> None:
        """Halves the weight of what is known."""
        self._weight /= 2
        self.trials //= 2

    @property
    def hopeful_tokens(self) -> float:
        """Tokens per iteration, above the mean by a standard error, and by less of it when well tried."""
        variance = max(self._squares - self.tokens**2, 0.05)
        return self.tokens + sqrt(variance / self._weight) * min(1.0, WELL_TRIED / (self.trials + 1))


class CopyArm:
    """The lookup where a match of some length was found: how often a copied token is accepted after an accepted one.

    It starts as if three tokens had been accepted at the rate ``guess``. ``limit``: the longest draft that is worth
    the risk. It doubles when all of one was accepted and halves when most was not.
    """

    def __init__(self, guess: float) -> None:
        self.limit = FIRST_COPY
        self._seen = 3.0
        self._accepted = guess * self._seen

    def learn(self, drafted: int, accepted: int) -> None:
        if accepted >= drafted:
            self.limit = max(self.limit, 2 * drafted)
        elif accepted < drafted / 2:
            self.limit = max(1, self.limit // 2)
        for place in range(min(drafted, accepted + 1)):
            self._seen = MEMORY * self._seen + 1
            self._accepted = MEMORY * self._accepted + (place < accepted)

    def neglect(self) -> None:
        """Passed over once more: what is known gets slowly out of date."""
        self._seen *= 0.995
        self._accepted *= 0.995

    @property
    def hopeful_acceptance(self) -> float:
        """Half a standard error above what was seen: a wrong guess is made often before it is known to be one."""
        mean = self._accepted / self._seen
        return min(mean + 0.5 * sqrt(max(mean * (1 - mean), 0.01) / self._seen), 1.0)

    def hopeful_tokens(self, drafted: int) -> float:
        """Expected tokens of an iteration that copies ``drafted``: each counts if all before it were accepted."""
        return tokens_per_iteration(self.hopeful_acceptance, drafted)
