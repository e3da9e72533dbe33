"""The verifier's corner cases: ties of float rounding, missing mass, broken numbers, and the shared noise."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare, kstest

from hsd_cli.decoding.noise import exponential_noise
from hsd_cli.decoding.verification import Coupled, Randomness, Rejection
from hsd_cli.drafting.protocol import Draft

CPU = torch.device("cpu")


def rejection(seed: int = 0) -> Rejection:
    return Rejection(Randomness(torch.Generator().manual_seed(seed)))


def test_a_residual_of_zero_falls_back_to_the_target() -> None:
    # ψ rounds above p everywhere, so that a rejection leaves nothing to draw from.
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    psi = torch.tensor([[0.75, 0.75]])
    verdicts = [rejection(seed).verify(logits, Draft(torch.tensor([0]), psi), 0).tolist() for seed in range(50)]
    assert {token for accepted, token, _ in verdicts if accepted == 0} == {0, 1}


def test_a_proposal_that_had_no_chance_is_rejected_not_divided_by_zero() -> None:
    accepted, token, sound = rejection().verify(
        torch.tensor([[0.0, 0.0], [0.0, 0.0]]), Draft(torch.tensor([0]), torch.zeros(1, 2)), 0
    )
    assert accepted == 0
    assert token in (0, 1)
    assert sound


def test_impossible_tokens_are_never_written() -> None:
    logits = torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]])
    draft = Draft(torch.tensor([1]), torch.tensor([[0.0, 1.0]]))
    for seed in range(50):
        assert rejection(seed).verify(logits, draft, 0).tolist() == [0, 0, 1]
        assert Coupled(seed).verify(logits, draft, 0).tolist() == [0, 0, 1]


def test_probabilities_at_the_edge_of_float32_stay_finite() -> None:
    logits = torch.tensor([[0.0, -103.0], [0.0, -103.0]])  # the second has a denormal probability
    psi = torch.tensor([[1e-45, 1.0]])
    for token in (0, 1):
        verdict = rejection().verify(logits, Draft(torch.tensor([token]), psi), 0)
        assert verdict[2]
        assert verdict[1] in (0, 1)


@pytest.mark.parametrize("rule", [rejection(), Coupled(1), Coupled(None)], ids=["rejection", "coupled", "greedy"])
@pytest.mark.parametrize("drafted", [0, 2])
def test_broken_logits_are_reported(rule: Rejection | Coupled, drafted: int) -> None:
    logits = torch.full((drafted + 1, 4), torch.nan)
    assert rule.verify(logits, Draft(torch.zeros(drafted, dtype=torch.int64)), 0)[2] == 0


def test_void_proposals_are_rejections() -> None:
    # The drafter put half of its mass on something that the target cannot write.
    logits = torch.zeros(2, 2)
    draft = Draft(torch.tensor([2]), torch.tensor([[0.5, 0.0]]))
    verdicts = [rejection(seed).verify(logits, draft, 0).tolist() for seed in range(50)]
    assert all(accepted == 0 for accepted, _, _ in verdicts)
    assert {token for _, token, _ in verdicts} == {1}  # max(0, p - ψ) leaves only token 1


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("rule", [Rejection, Coupled])
def test_void_point_masses_are_rejections_with_nothing_to_subtract(rule: type, place: int) -> None:
    certain, open_choice = [0.0, -torch.inf], [0.0, 0.0]
    logits = torch.tensor([certain] * place + [open_choice] * (3 - place))
    draft = Draft(torch.tensor([0] * place + [2, 0][: 2 - place]))  # with two tokens, an id of 2 is void
    seeded = (rejection(seed) if rule is Rejection else Coupled(seed) for seed in range(50))
    verdicts = [one.verify(logits, draft, 0).tolist() for one in seeded]
    assert {accepted for accepted, _, _ in verdicts} == {place}
    assert {token for _, token, _ in verdicts} == {0, 1}
    assert all(sound for _, _, sound in verdicts)


def test_noise_is_exponential_and_independent_between_positions_seeds_and_tokens() -> None:
    noise = exponential_noise(seed=3, position=0, count=200, size=500, device=CPU)
    assert kstest(noise.flatten().numpy(), "expon").pvalue > 1e-3
    rows = torch.stack(
        [noise[0], noise[1], exponential_noise(4, 0, 1, 500, CPU)[0], noise[:, :1].flatten().repeat(3)[:500]]
    )
    correlation = torch.corrcoef(rows) - torch.eye(4)
    assert correlation.abs().max() < 0.2


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**63, 2**64 + 5])
def test_noise_depends_on_the_position_not_on_the_call(seed: int) -> None:
    whole = exponential_noise(seed, 10, 6, 300, CPU)
    assert torch.equal(whole[2:4], exponential_noise(seed, 12, 2, 300, CPU))
    assert torch.equal(whole[:, :7], exponential_noise(seed, 10, 6, 7, CPU))
    assert (whole > 0).all()
    assert whole.isfinite().all()


def test_coupled_draws_follow_the_distribution() -> None:
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    counts = torch.zeros(4)
    for position in range(8000):
        counts[Coupled(7).propose(p, position)] += 1
    assert chisquare(counts.numpy(), (p * 8000).numpy()).pvalue > 1e-3


def test_coupled_sides_agree_as_often_as_promised() -> None:
    p, psi = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.3, 0.5, 0.2])
    agreed = sum(int(Coupled(5).propose(p, i) == Coupled(5).propose(psi, i)) for i in range(4000)) / 4000
    distance = 0.2
    assert (1 - distance) / (1 + distance) - 0.03 < agreed <= 1 - distance + 0.03


def test_without_noise_the_likeliest_token_is_proposed() -> None:
    assert Coupled(None).propose(torch.tensor([0.2, 0.5, 0.3]), 0) == 1


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
