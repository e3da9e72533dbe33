"""What `hsd verify` concludes: the statistics, and the call between rounding and a defect."""

from __future__ import annotations

import random

import pytest
import torch
from scipy.stats import chi2, chi2_contingency, chisquare, kstest, ncx2

from hsd_cli.bench.lossless.chi_square import (
    Evidence,
    Outcome,
    goodness_of_fit,
    group_tokens,
    homogeneity,
    one_sample_test,
    two_sample_test,
)
from hsd_cli.bench.lossless.divergence import compare_scores, is_tie, logits_at
from hsd_cli.bench.lossless.pair import Pass
from tests.tiny import TableModel

LAW = torch.tensor([0.4, 0.25, 0.2, 0.1, 0.03, 0.015, 0.005])


def sample(law: torch.Tensor, count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(len(law)), law.tolist(), k=count)


def one_token(ids: list[int]) -> list[Outcome]:
    return [(token,) for token in ids]


# Two samples


def test_the_statistic_is_that_of_a_contingency_table() -> None:
    first, second = [0] * 30 + [1] * 50 + [2] * 20, [0] * 40 + [1] * 35 + [2] * 25
    expected = chi2_contingency([[30, 50, 20], [40, 35, 25]])
    found = two_sample_test(homogeneity(one_token(first), one_token(second)), 100, 0.001)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.freedom == 2
    assert found.p_value == pytest.approx(expected.pvalue)


def test_rare_outcomes_fall_back_to_what_they_begin_with() -> None:
    frequent, split, rare = [(0, 0)] * 10, [(0, token) for token in range(1, 6)], [(token, 0) for token in range(1, 4)]
    same = [*frequent, *split, *rare]
    # (0, 0); (0, anything else), ten times in both together; everything else.
    assert homogeneity(same, same) == Evidence(0.0, 2)


def test_one_outcome_tells_nothing() -> None:
    found = two_sample_test(homogeneity([(0, 0)] * 50, [(0, 0)] * 50), 50, 0.001)
    assert (found.freedom, found.p_value, found.detectable) == (0, 1.0, 1.0)


def test_samples_of_one_law_have_uniform_p_values() -> None:
    def p_value(seed: int) -> float:
        first, second = (one_token(sample(LAW, 300, 2 * seed + side)) for side in (0, 1))
        return two_sample_test(homogeneity(first, second), 300, 0.001).p_value

    assert kstest([p_value(seed) for seed in range(300)], "uniform").pvalue > 0.001


# A sample against the exact law


def test_the_statistic_is_pearsons() -> None:
    law = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    expected = chisquare([40, 40, 20], [50, 30, 20])
    found = one_sample_test(goodness_of_fit([0] * 40 + [1] * 40 + [2] * 20, law), 100, 0.001)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.freedom == 2
    assert found.p_value == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("samples", [1, 20, 100, 1010])
def test_every_bin_is_expected_often_enough(samples: int) -> None:
    bins, masses = group_tokens(LAW, samples)
    assert torch.bincount(torch.tensor(bins), LAW.double(), minlength=len(masses)).allclose(masses)
    assert float(masses.sum()) == pytest.approx(1)
    assert len(masses) == {1: 1, 20: 3, 100: 4, 1010: 7}[samples]
    assert len(masses) == 1 or float(masses.min()) * samples > 5 - 1e-6


def test_samples_of_the_exact_law_have_uniform_p_values() -> None:
    bins, masses = group_tokens(LAW, 300)

    def p_value(seed: int) -> float:
        tokens = sample(LAW, 300, seed)
        return one_sample_test(goodness_of_fit([bins[token] for token in tokens], masses), 300, 0.001).p_value

    assert kstest([p_value(seed) for seed in range(300)], "uniform").pvalue > 0.001


def test_the_detectable_distance_is_found_every_other_time() -> None:
    significance, samples, freedom = 1e-4, 400, 12
    for test, weight in ((two_sample_test, 2), (one_sample_test, 4)):
        distance = test(Evidence(20.0, freedom), samples, significance).detectable
        power = ncx2.sf(chi2.isf(significance, freedom), freedom, weight * samples * distance**2)
        assert power == pytest.approx(0.5, abs=0.05)


def test_more_samples_find_less() -> None:
    few, many = (two_sample_test(Evidence(20.0, 12), samples, 1e-4).detectable for samples in (100, 10_000))
    assert few == pytest.approx(10 * many)


# A tie or a defect


def tie(
    plain: list[float], together: list[float], dtype: torch.dtype = torch.bfloat16, noise: list[float] | None = None
) -> bool:
    """Whether plain decoding's token 0 and an algorithm's token 1 are a tie; 20 is the largest logit."""
    one_by_one, verified = torch.tensor([*plain, 20.0, -torch.inf]), torch.tensor([*together, 20.0, -torch.inf])
    added = torch.tensor([*(noise or [0.0, 0.0]), -50.0, 0.0])
    return is_tie(compare_scores(one_by_one, verified, added, (0, 1), dtype))


def test_a_near_tie_that_rounding_turned_over_is_a_tie() -> None:
    assert tie([15.125, 15.0], [15.0, 15.125])


def test_a_clear_preference_is_a_defect() -> None:
    assert not tie([15.125, 12.0], [15.0, 12.0])


def test_equal_logits_are_a_tie_in_any_format() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert tie([15.0, 15.0], [15.0, 15.0], dtype)


def test_the_same_gap_in_a_finer_format_is_a_defect() -> None:
    assert not tie([15.125, 15.0], [15.0, 15.125], torch.float32)


def test_nothing_excuses_a_gap_where_both_ways_of_reading_agree() -> None:
    assert not tie([15.0625, 15.0], [15.0625, 15.0])


def test_passes_that_disagree_beyond_the_format_are_a_defect() -> None:
    assert not tie([15.0, 10.0], [10.0, 15.0])


def test_under_coupled_the_noise_counts() -> None:
    assert tie([15.125, 10.0], [15.0, 10.125], noise=[0.0, 5.0])
    assert not tie([15.125, 15.0], [15.0, 15.125], noise=[0.0, -3.0])


def test_the_reported_gap_is_the_larger_one() -> None:
    scores = compare_scores(
        torch.tensor([3.0, 2.5]), torch.tensor([2.0, 2.25]), torch.tensor([0.0, 1.0]), (0, 1), torch.bfloat16
    )
    assert (scores.one_by_one, scores.together, scores.gap) == ((3.0, 3.5), (2.0, 3.25), 1.25)


class RememberingModel(TableModel):
    """Keeps the widths of its passes."""

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        self.widths = [*getattr(self, "widths", []), len(ids)]
        return super().run(ids)


@pytest.mark.parametrize(("place", "widths"), [(0, [3]), (1, [3]), (2, [3, 5]), (4, [3, 5, 1])])
def test_a_text_is_read_again_as_it_was_read(place: int, widths: list[int]) -> None:
    model = RememberingModel(6, seed=3)
    prompt, text = [1, 2, 3], [4, 5, 1, 2, 0]
    passes = [Pass(3, 2), Pass(5, 2), Pass(1, 1)]  # one of two drafted tokens was accepted, one of four, none
    logits = logits_at(model, prompt, text, passes, place)
    assert logits.equal(TableModel(6, seed=3).logits_after([*prompt, *text[:place]]))
    assert model.widths == widths
