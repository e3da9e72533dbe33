"""Chi-square tests of sampled beginnings: do two samples, or a sample and a distribution, have the same law?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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


def goodness_of_fit(sample: Sequence[int], probabilities: torch.Tensor) -> Evidence:
    """Bin numbers against the bins' exact ``probabilities`` (``[B]``): Pearson's ``Σ (n - e)² / e``."""
    observed = torch.bincount(torch.tensor(sample), minlength=len(probabilities))
    expected = probabilities * len(sample)
    return Evidence(float(((observed - expected) ** 2 / expected).sum()), len(probabilities) - 1)


def group_tokens(probabilities: torch.Tensor, samples: int) -> tuple[list[int], torch.Tensor]:
    """Bins of tokens that ``samples`` draws from ``probabilities`` (``[V]``) are expected to hit often enough.

    From the likeliest token down, so that frequent ones stay alone and rare ones meet their like.
    Returns the bin of every token, and the bins' probabilities (float64 ``[B]``).
    """
    values, order = probabilities.double().sort(descending=True)
    bins, masses = [0] * len(order), [0.0]
    left = float(values.sum())
    for token, mass in zip(order.tolist(), values.tolist(), strict=True):
        if min(masses[-1], left) * samples >= LEAST_EXPECTED:
            masses.append(0.0)
        bins[token] = len(masses) - 1
        masses[-1] += mass
        left -= mass
    total = torch.tensor(masses, dtype=torch.float64)
    return bins, total / total.sum()


def two_sample_test(evidence: Evidence, samples: int, significance: float) -> ChiSquare:
    """``samples`` per side. A distance ``δ`` adds at least ``2 n δ²`` to the statistic, by Cauchy and Schwarz."""
    return _test(evidence, 2 * samples, significance)


def one_sample_test(evidence: Evidence, samples: int, significance: float) -> ChiSquare:
    """A distance ``δ`` adds at least ``4 n δ²`` to the statistic."""
    return _test(evidence, 4 * samples, significance)


def _test(evidence: Evidence, weight: int, significance: float) -> ChiSquare:
    freedom = evidence.freedom
    if freedom == 0:  # one bin only: nothing could differ
        return ChiSquare(evidence.statistic, 0, 1.0, 1.0)
    half_freedom, half = torch.tensor([freedom, evidence.statistic], dtype=torch.float64) / 2
    excess = _critical(freedom, significance) - freedom
    p_value = float(torch.special.gammaincc(half_freedom, half))
    return ChiSquare(evidence.statistic, freedom, p_value, min(1.0, sqrt(excess / weight)))


def _critical(freedom: int, significance: float) -> float:
    """The statistic that is exceeded with probability ``significance`` (Wilson and Hilferty 1931; good to 1 %)."""
    z = NormalDist().inv_cdf(1 - significance)
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + z * sqrt(spread)) ** 3)
