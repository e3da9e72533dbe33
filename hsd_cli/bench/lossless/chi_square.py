"""Chi-square tests of samples of short texts: do two samples, or a sample and a distribution, have the same law?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import torch

from hsd_cli.ui.verify_report import ChiSquare

LEAST_EXPECTED = 5  # per bin: the usual rule for the approximation to hold (Cochran 1954)

Outcome = tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    """A statistic and its degrees of freedom; those of independent samples add up."""

    statistic: float = 0.0
    freedom: int = 0

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(self.statistic + other.statistic, self.freedom + other.freedom)


def homogeneity(first: Sequence[Outcome], second: Sequence[Outcome]) -> Evidence:
    """Two samples of one size: ``Σ (a - b)² / (a + b)`` over the bins, with one degree of freedom less than bins."""
    assert len(first) == len(second)
    bins = _frequent_beginnings(Counter([*first, *second]))
    a, b = (Counter(bins[outcome] for outcome in sample) for sample in (first, second))
    used = a.keys() | b.keys()
    return Evidence(sum((a[name] - b[name]) ** 2 / (a[name] + b[name]) for name in used), len(used) - 1)


def _frequent_beginnings(counts: Counter[Outcome]) -> dict[Outcome, Outcome]:
    """A bin for every outcome: its longest beginning that, with all that fell back to it, is frequent enough.

    The bins depend on both samples together alone, so that they favour no result.
    """
    bins = {outcome: outcome for outcome in counts}
    for length in range(max(map(len, counts)), 0, -1):
        sizes = Counter[Outcome]()
        for outcome, name in bins.items():
            sizes[name] += counts[outcome]
        for outcome, name in bins.items():
            if len(name) == length and sizes[name] < 2 * LEAST_EXPECTED:
                bins[outcome] = name[:-1]
    return bins


def goodness_of_fit(sample: Iterable[int], probabilities: torch.Tensor) -> Evidence:
    """Tokens against their exact distribution (``[V]``): Pearson's ``Σ (n - e)² / e``, with rare tokens in one bin."""
    size = len(probabilities)
    counts = torch.bincount(torch.tensor(list(sample)), minlength=size).double()
    expected = probabilities.double().cpu() * counts.sum()
    frequent = expected >= LEAST_EXPECTED
    if frequent.any() and expected[~frequent].sum() < LEAST_EXPECTED:
        frequent[torch.where(frequent, expected, torch.inf).argmin()] = False  # the bin of the rest is too small alone
    observed = torch.cat([counts[frequent], counts[~frequent].sum()[None]])
    expected = torch.cat([expected[frequent], expected[~frequent].sum()[None]])
    return Evidence(float(((observed - expected) ** 2 / expected).sum()), len(observed) - 1)


def two_sample_test(evidence: Evidence, samples: int, significance: float) -> ChiSquare:
    """``samples`` per side. A distance ``δ`` adds at least ``2 n δ²`` to the statistic, by Cauchy and Schwarz."""
    return _test(evidence, 2 * samples, significance)


def one_sample_test(evidence: Evidence, samples: int, significance: float) -> ChiSquare:
    """A distance ``δ`` adds at least ``4 n δ²`` to the statistic."""
    return _test(evidence, 4 * samples, significance)


def _test(evidence: Evidence, weight: int, significance: float) -> ChiSquare:
    freedom = evidence.freedom
    if freedom == 0:  # one outcome only: nothing could differ
        return ChiSquare(evidence.statistic, 0, 1.0, 1.0)
    halves = torch.tensor([freedom, evidence.statistic], dtype=torch.float64) / 2
    p_value = float(torch.special.gammaincc(*halves))
    excess = _critical(freedom, significance) - freedom
    return ChiSquare(evidence.statistic, freedom, p_value, min(1.0, sqrt(excess / weight)))


def _critical(freedom: int, significance: float) -> float:
    """The statistic that is exceeded with probability ``significance`` (Wilson and Hilferty 1931; good to 1 %)."""
    z = NormalDist().inv_cdf(1 - significance)
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + z * sqrt(spread)) ** 3
