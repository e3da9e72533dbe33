"""The verifier's corner cases: ties of float rounding, missing mass, broken numbers, and the shared noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import chisquare, kstest
from torch.utils._python_dispatch import TorchDispatchMode

from hsd_cli.decoding.noise import exponential_noise
from hsd_cli.decoding.verification import Coupled, Randomness, Rejection, Verdict
from hsd_cli.drafting.projection import Projection
from hsd_cli.drafting.protocol import Draft
from hsd_cli.drafting.slrs import FirstTokens

CPU = torch.device("cpu")


def rejection(seed: int = 0) -> Rejection:
    return Rejection(Randomness(torch.Generator().manual_seed(seed)))


def proposed(rule: Coupled, weights: torch.Tensor, position: int) -> int:
    columns = Projection([(token, token) for token in range(len(weights))], (len(weights),) * 2, (CPU, CPU))
    return int(rule.propose(weights, columns, torch.tensor([position])))


def test_a_residual_of_zero_falls_back_to_the_target() -> None:
    # ψ rounds above p everywhere, so that a rejection leaves nothing to draw from.
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    psi = torch.tensor([[0.75, 0.75]])
    verdicts = [rejection(seed).verify(logits, Draft(torch.tensor([0]), psi), 0) for seed in range(50)]
    assert {verdict.tokens[0] for verdict in verdicts if verdict.accepted == 0} == {0, 1}


def test_a_proposal_that_had_no_chance_is_rejected_not_divided_by_zero() -> None:
    verdict = rejection().verify(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), Draft(torch.tensor([0]), torch.zeros(1, 2)), 0)
    assert verdict.accepted == 0
    assert verdict.tokens in ([0], [1])
    assert verdict.sound


def test_impossible_tokens_are_never_written() -> None:
    logits = torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]])
    draft = Draft(torch.tensor([1]), torch.tensor([[0.0, 1.0]]))
    for seed in range(50):
        assert rejection(seed).verify(logits, draft, 0) == Verdict(0, [0], sound=True)
        assert Coupled(seed).verify(logits, draft, 0) == Verdict(0, [0], sound=True)


def test_probabilities_at_the_edge_of_float32_stay_finite() -> None:
    logits = torch.tensor([[0.0, -103.0], [0.0, -103.0]])  # the second has a denormal probability
    psi = torch.tensor([[1e-45, 1.0]])
    for token in (0, 1):
        verdict = rejection().verify(logits, Draft(torch.tensor([token]), psi), 0)
        assert verdict.sound
        assert verdict.tokens[-1] in (0, 1)


@pytest.mark.parametrize("rule", [rejection(), Coupled(1), Coupled(None)], ids=["rejection", "coupled", "greedy"])
@pytest.mark.parametrize("drafted", [0, 2])
def test_broken_logits_are_reported(rule: Rejection | Coupled, drafted: int) -> None:
    logits = torch.full((drafted + 1, 4), torch.nan)
    assert not rule.verify(logits, Draft(torch.zeros(drafted, dtype=torch.int64)), 0).sound


def test_void_proposals_are_rejections() -> None:
    # The drafter put half of its mass on something that the target cannot write.
    logits = torch.zeros(2, 2)
    draft = Draft(torch.tensor([2]), torch.tensor([[0.5, 0.0]]))
    verdicts = [rejection(seed).verify(logits, draft, 0) for seed in range(50)]
    assert all(verdict.accepted == 0 for verdict in verdicts)
    assert {verdict.tokens[0] for verdict in verdicts} == {1}  # max(0, p - ψ) leaves only token 1


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("rule", [Rejection, Coupled])
def test_void_point_masses_are_rejections_with_nothing_to_subtract(rule: type, place: int) -> None:
    certain, open_choice = [0.0, -torch.inf], [0.0, 0.0]
    logits = torch.tensor([certain] * place + [open_choice] * (3 - place))
    draft = Draft(torch.tensor([0] * place + [2, 0][: 2 - place]))  # with two tokens, an id of 2 is void
    seeded = (rejection(seed) if rule is Rejection else Coupled(seed) for seed in range(50))
    verdicts = [one.verify(logits, draft, 0) for one in seeded]
    assert {verdict.accepted for verdict in verdicts} == {place}
    assert {verdict.tokens[-1] for verdict in verdicts} == {0, 1}
    assert all(verdict.sound for verdict in verdicts)


def test_noise_is_exponential_and_independent_between_positions_seeds_and_tokens() -> None:
    noise = exponential_noise(3, torch.arange(200), torch.arange(500))
    assert kstest(noise.flatten().numpy(), "expon").pvalue > 1e-3
    of_another_seed = exponential_noise(4, torch.tensor([0]), torch.arange(500))[0]
    rows = torch.stack([noise[0], noise[1], of_another_seed, noise[:, :1].flatten().repeat(3)[:500]])
    correlation = torch.corrcoef(rows) - torch.eye(4)
    assert correlation.abs().max() < 0.2


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**63, 2**64 + 5])
def test_noise_depends_on_position_and_token_not_on_the_call(seed: int) -> None:
    positions, tokens = torch.arange(10, 16), torch.arange(300)
    whole = exponential_noise(seed, positions, tokens)
    assert torch.equal(whole[2:4], exponential_noise(seed, positions[2:4], tokens))
    some = torch.tensor([7, 290, 0])
    assert torch.equal(whole[:, some], exponential_noise(seed, positions, some))
    assert (whole > 0).all()
    assert whole.isfinite().all()


def test_coupled_draws_follow_the_distribution() -> None:
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    counts = torch.zeros(4)
    for position in range(8000):
        counts[proposed(Coupled(7), p, position)] += 1
    assert chisquare(counts.numpy(), (p * 8000).numpy()).pvalue > 1e-3


def test_coupled_sides_agree_as_often_as_promised() -> None:
    p, psi = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.3, 0.5, 0.2])
    agreed = sum(proposed(Coupled(5), p, i) == proposed(Coupled(5), psi, i) for i in range(4000)) / 4000
    distance = 0.2
    assert (1 - distance) / (1 + distance) - 0.03 < agreed <= 1 - distance + 0.03


def test_without_noise_the_likeliest_token_is_proposed() -> None:
    assert proposed(Coupled(None), torch.tensor([0.2, 0.5, 0.3]), 0) == 1


def test_a_token_is_proposed_by_all_its_columns_and_drafted_by_the_likeliest() -> None:
    columns = FirstTokens([(0, 5), (1, 3), (2, 3)], (3, 6), (CPU, CPU))
    assert Coupled(None).propose(torch.tensor([0.4, 0.25, 0.35]), columns, torch.tensor([0])) == 2


def test_draws_follow_the_weights_and_never_what_has_none() -> None:
    weights = torch.tensor([0.0, 3.0, 0.0, 1.0, 1e-9, 4.0, 0.0])
    randomness = Randomness(torch.Generator().manual_seed(0))
    counts = torch.stack([randomness.draw(weights) for _ in range(8000)]).bincount(minlength=7)
    assert counts[weights == 0].sum() == 0
    likely = weights >= 1
    expected = 8000 * weights[likely] / weights.sum()
    assert ((counts[likely] - expected) ** 2 / expected).sum() < 13.8  # χ², 2 degrees of freedom, p = 0.001


@pytest.mark.parametrize("rarest", [0.0, 1 - 2.0**-53], ids=["least", "greatest"])
def test_no_random_number_draws_what_has_no_weight(rarest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda tensor, generator: tensor.fill_(rarest))
    assert Randomness(torch.Generator()).draw(torch.tensor([0.0, 0.3, 0.0])) == 1


class NoFloat64(TorchDispatchMode):
    """MPS, for one, has none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        assert not (isinstance(result, torch.Tensor) and result.dtype == torch.float64), func
        return result


@pytest.mark.parametrize("seed", [None, 3])
def test_coupled_drafts_are_proposed_and_checked_without_float64(seed: int | None) -> None:
    rule, last = Coupled(seed), (1 << 17) + 1  # an odd id of a large vocabulary
    logits = torch.zeros(2, last + 1)
    logits[:, last] = 100.0
    with NoFloat64():
        assert proposed(rule, logits[0].exp(), 0) == last
        assert rule.verify(logits, Draft(torch.tensor([last])), 0) == Verdict(1, [last, last], sound=True)
