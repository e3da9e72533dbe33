"""Exact laws: runs a random program once for every way that its random choices can fall."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import torch


class EnumeratedRandomness:
    """Stands in for ``Randomness``: follows a prescribed trail of choices and keeps the probability of the path."""

    generator = None

    def __init__(self, trail: Sequence[int]) -> None:
        self._trail = list(trail)
        self.path: list[int] = []
        self.alternatives: list[list[int]] = []
        self.probability = 1.0

    def _choose(self, probabilities: list[float]) -> int:
        depth = len(self.path)
        possible = [index for index, probability in enumerate(probabilities) if probability > 0]
        choice = self._trail[depth] if depth < len(self._trail) else possible[0]
        self.path.append(choice)
        self.alternatives.append([index for index in possible if index > choice])
        self.probability *= probabilities[choice]
        return choice

    def draw(self, weights: torch.Tensor) -> torch.Tensor:
        weights = weights.double()
        if weights.sum() == 0:  # nothing to draw from: any id, which the verifier has to reject
            return torch.tensor(0)
        return torch.tensor(self._choose((weights / weights.sum()).tolist()))

    def accept(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Only where the first rejection falls matters, so that is one choice."""
        accepted = 1.0
        firsts = []
        for probability in probabilities.double().tolist():
            firsts.append(accepted * (1 - probability))
            accepted *= probability
        return torch.arange(len(probabilities)) < self._choose([*firsts, accepted])


class EveryCoin(EnumeratedRandomness):
    """Follows the coins behind a rejection, too: nothing may come of how they fall."""

    def accept(self, probabilities: torch.Tensor) -> torch.Tensor:
        return torch.tensor([self._choose([1 - p, p]) == 1 for p in probabilities.double().tolist()])


def law(
    program: Callable[[EnumeratedRandomness], Hashable],
    randomness_of: type[EnumeratedRandomness] = EnumeratedRandomness,
) -> dict[Hashable, float]:
    """The exact distribution of what ``program`` returns."""
    outcomes: defaultdict[Hashable, float] = defaultdict(float)
    trail: list[int] | None = []
    while trail is not None:
        randomness = randomness_of(trail)
        outcomes[program(randomness)] += randomness.probability
        trail = _next_trail(randomness)
    return dict(outcomes)


def _next_trail(randomness: EnumeratedRandomness) -> list[int] | None:
    for depth in range(len(randomness.path) - 1, -1, -1):
        if randomness.alternatives[depth]:
            return [*randomness.path[:depth], randomness.alternatives[depth][0]]
    return None
