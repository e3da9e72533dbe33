"""The heart: whatever drafts, by whatever rule, the text follows exactly the target's distribution."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import pytest
import torch
from scipy.stats import chi2

from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.decoding.verification import Coupled, Randomness, Rejection, Verdict
from hsd_cli.drafting.names import ALGORITHM_NAMES
from hsd_cli.drafting.protocol import Draft
from hsd_cli.drafting.registry import ALGORITHMS
from hsd_cli.errors import UsageError
from tests.breadth import breadth, thorough
from tests.enumeration import EnumeratedRandomness, EveryCoin, law
from tests.laws import SETTINGS, VOCABULARIES, TinyPair, exact_law, target_row, tiny_pair, token_ids
from tests.tiny import TableModel, vocabulary

# Every algorithm that the registry has is tested here.
HETEROGENEOUS = [name for name in ALGORITHMS if name not in ("sd", "ar")]
CASES = [(algorithm, name) for name in VOCABULARIES for algorithm in HETEROGENEOUS] + [("sd", "same"), ("ar", "same")]
FEWER_CASES = breadth(CASES, quick=[case for case in CASES if case[1] in ("same", "heterogeneous")])


def test_people_can_name_every_algorithm() -> None:
    assert list(ALGORITHM_NAMES) == ["auto", *ALGORITHMS]


def iteration_law(
    pair: TinyPair,
    algorithm: str,
    settings: SamplingSettings,
    rule: type[Rejection] = Rejection,
    length: int = 3,
    randomness_of: type[EnumeratedRandomness] = EnumeratedRandomness,
) -> dict[tuple[int, ...], float]:
    """Exact law of texts of ``length`` tokens: one real draft-and-verify, then the target's own distribution."""

    def first_commit(randomness: EnumeratedRandomness) -> tuple[int, ...]:
        commit = next(pair.commits(algorithm, rule(randomness), settings, length))  # type: ignore[arg-type]
        assert commit.drafted or algorithm == "ar"
        return tuple(piece.token for piece in commit.pieces)

    model, eos = pair.target(), pair.target_vocabulary.eos_ids
    texts: dict[tuple[int, ...], float] = {}
    pending = list(law(first_commit, randomness_of).items())
    while pending:
        text, probability = pending.pop()
        assert isinstance(text, tuple)
        if len(text) == length or (text and text[-1] in eos):
            texts[text] = texts.get(text, 0.0) + probability
        else:
            row = target_row(model, [*pair.prompt, *text], settings)
            pending += [((*text, token), probability * p) for token, p in enumerate(row.tolist()) if p > 0]
    return texts


def largest_difference(first: dict[tuple[int, ...], float], second: dict[tuple[int, ...], float]) -> float:
    return max(abs(first.get(text, 0.0) - second.get(text, 0.0)) for text in first.keys() | second.keys())


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("algorithm", "vocabularies"), FEWER_CASES)
def test_draft_and_verify_have_exactly_the_targets_law(
    algorithm: str, vocabularies: str, settings: SamplingSettings
) -> None:
    pair = tiny_pair(vocabularies)
    difference = largest_difference(iteration_law(pair, algorithm, settings), exact_law(pair, settings, 3))
    assert difference < 1e-6


@pytest.mark.parametrize("algorithm", HETEROGENEOUS)
def test_coins_behind_a_rejection_change_nothing(algorithm: str) -> None:
    pair, settings = tiny_pair("heterogeneous"), SETTINGS["temperature 1"]
    texts = iteration_law(pair, algorithm, settings, randomness_of=EveryCoin)
    assert largest_difference(texts, exact_law(pair, settings, 3)) < 1e-6


@pytest.mark.parametrize(("target_padding", "drafter_padding"), [(2, 0), (0, 2), (1, 3)])
@pytest.mark.parametrize("algorithm", ["slem", "slrs", "tli", "union", "sd"])
def test_padded_heads_are_the_same_vocabulary(algorithm: str, target_padding: int, drafter_padding: int) -> None:
    pair, settings = tiny_pair("same"), SETTINGS["temperature 1"]
    pair.target_padding, pair.drafter_padding = target_padding, drafter_padding
    # The padding is part of the target's distribution, as it is in `generate`; it is never drafted.
    assert largest_difference(iteration_law(pair, algorithm, settings), exact_law(pair, settings, 3)) < 1e-6
    commits = pair.commits(algorithm, Rejection(Randomness(torch.Generator().manual_seed(1))), settings, 300, eos=False)
    drafted = {piece.token for commit in commits for piece in commit.pieces if piece.drafted}
    assert drafted
    assert max(drafted) < len(pair.target_vocabulary)


@pytest.mark.parametrize("algorithm", HETEROGENEOUS)
def test_whole_texts_over_several_iterations_have_exactly_the_targets_law(algorithm: str) -> None:
    pair, settings = tiny_pair("heterogeneous"), SETTINGS["top-k 3"]

    def text(randomness: EnumeratedRandomness) -> tuple[int, ...]:
        rule = Rejection(randomness)  # type: ignore[arg-type]
        return tuple(token_ids(pair.commits(algorithm, rule, settings, 3, lookahead=1)))

    assert largest_difference(law(text), exact_law(pair, settings, 3)) < 1e-6  # type: ignore[arg-type]


class Impatient:
    """Ends a draft after an unlikely token."""

    def go_on(self, confidence: torch.Tensor) -> bool:
        return float(confidence) > 0.3

    def learn(self, confirmed: int) -> None:
        pass


@pytest.mark.parametrize("algorithm", ["slem", "slrs", "tli", "union"])
@pytest.mark.parametrize("vocabularies", ["heterogeneous", "subset"])
def test_a_draft_may_end_where_its_own_tokens_are_unlikely(vocabularies: str, algorithm: str) -> None:
    pair, settings = tiny_pair(vocabularies), SETTINGS["temperature 1"]
    pair.patience = Impatient()
    assert largest_difference(iteration_law(pair, algorithm, settings), exact_law(pair, settings, 3)) < 1e-6


class NarrowPair(TinyPair):
    """The target's memory is too small for more than two tokens at once."""

    def target(self) -> TableModel:
        target = super().target()
        run = target.run

        def run_what_fits(ids: torch.Tensor) -> torch.Tensor:
            if len(ids) > 2:
                raise torch.OutOfMemoryError
            return run(ids)

        target.run = run_what_fits  # type: ignore[method-assign]
        return target


@pytest.mark.parametrize("algorithm", HETEROGENEOUS)
def test_a_draft_that_is_cut_for_want_of_memory_keeps_the_targets_law(algorithm: str) -> None:
    pair, settings = NarrowPair(*map(vocabulary, VOCABULARIES["heterogeneous"])), SETTINGS["temperature 1"]
    assert largest_difference(iteration_law(pair, algorithm, settings), exact_law(pair, settings, 3)) < 1e-6


def test_choosing_another_algorithm_at_every_iteration_keeps_the_targets_law(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("hsd_cli.runtime.clock.perf_counter", lambda: next(ticks))
    pair, settings = tiny_pair("heterogeneous"), SETTINGS["top-k 3"]
    chosen = set()

    def text(randomness: EnumeratedRandomness) -> tuple[int, ...]:
        commits = list(pair.commits("auto", Rejection(randomness), settings, 4, lookahead=2))  # type: ignore[arg-type]
        chosen.update(commit.algorithm for commit in commits)
        return tuple(token_ids(iter(commits)))

    assert largest_difference(law(text), exact_law(pair, settings, 4)) < 1e-6  # type: ignore[arg-type]
    assert chosen == {"ar", "slrs", "tli"}  # the texts are too short for copies


class AcceptsEverything(Rejection):
    """A wrong verifier: skips the test of the proposals."""

    def verify(self, logits: torch.Tensor, draft: Draft, position: int) -> Verdict:
        p = logits.softmax(-1)
        accepted = int((draft.tokens < p.shape[1]).cumprod(0).sum())
        own = int(self._randomness.draw(p[accepted]))
        return Verdict(accepted, [*draft.tokens[:accepted].tolist(), own], sound=True)


class ForgetsTheResidual(Rejection):
    """A wrong verifier: after a rejection it draws from p, not from what ψ left over."""

    def verify(self, logits: torch.Tensor, draft: Draft, position: int) -> Verdict:
        accepted, tokens, sound = super().verify(logits, draft, position)
        own = int(self._randomness.draw(logits.softmax(-1)[accepted]))
        return Verdict(accepted, [*tokens[:accepted], own], sound)


class BelievesAWrongPsi(Rejection):
    """Proposals drawn from ψ, verified as if ψ had been another distribution."""

    def verify(self, logits: torch.Tensor, draft: Draft, position: int) -> Verdict:
        if draft.psi is not None:
            flat = torch.where(draft.psi > 0, 1.0, 0.0)
            draft = Draft(draft.tokens, flat / flat.sum(-1, keepdim=True).clamp(min=1))
        return super().verify(logits, draft, position)


class RenormalisesTheVoid(Rejection):
    """A wrong baseline: ψ with its void mass renormalised away."""

    def verify(self, logits: torch.Tensor, draft: Draft, position: int) -> Verdict:
        assert draft.psi is not None
        return super().verify(logits, Draft(draft.tokens, draft.psi / draft.psi.sum(-1, keepdim=True)), position)


@pytest.mark.parametrize(
    ("wrong", "algorithm"),
    [
        (AcceptsEverything, "tli"),
        (ForgetsTheResidual, "tli"),
        (ForgetsTheResidual, "union"),
        (BelievesAWrongPsi, "tli"),
        (BelievesAWrongPsi, "union"),
        (BelievesAWrongPsi, "slrs"),
        (ForgetsTheResidual, "slrs"),
        (RenormalisesTheVoid, "union"),
    ],
)
def test_these_tests_catch_wrong_verifiers_and_wrong_psi(wrong: type[Rejection], algorithm: str) -> None:
    pair, settings = tiny_pair("heterogeneous"), SETTINGS["temperature 1"]
    difference = largest_difference(iteration_law(pair, algorithm, settings, wrong), exact_law(pair, settings, 3))
    assert difference > 1e-3


class Fit(NamedTuple):
    """A statistic that follows a chi-square distribution where a text follows the target's."""

    statistic: float
    freedom: int

    @property
    def p_value(self) -> float:
        return float(chi2.sf(self.statistic, self.freedom))


def fit(pair: TinyPair, ids: list[int], settings: SamplingSettings) -> Fit:
    """Of every token to the target's distribution after what came before it.

    With order-1 tables that is the token before it and, for the repetition penalty, which tokens were seen at all.
    """
    model = pair.target()
    before, seen = pair.prompt[-1], frozenset(pair.prompt)
    counts: dict[tuple[int, ...], torch.Tensor] = {}
    for after in ids:
        counts.setdefault((*sorted(seen), before), torch.zeros(model.vocabulary_size, dtype=torch.float64))[after] += 1
        before, seen = after, seen | {after}
    statistic, freedom = 0.0, 0
    for past, row in counts.items():
        expected = target_row(model, list(past), settings) * row.sum()
        assert row[expected == 0].sum() == 0, "a token that the settings exclude was written"
        frequent = expected >= 5
        statistic += float((((row - expected) ** 2)[frequent] / expected[frequent]).sum())
        freedom += max(0, int(frequent.sum()) - 1)
    return Fit(statistic, freedom)


def assert_fit(fits: Sequence[Fit]) -> None:
    """Each of these independent texts, and all of them together."""
    together = Fit(sum(each.statistic for each in fits), sum(each.freedom for each in fits))
    assert min(each.p_value for each in [*fits, together]) > 1e-3


# Drafts and the verifier's use of them are enumerated above. What is left for samples is the generator's part in whole
# texts, which knows nothing of settings: 20,000 tokens of each algorithm, a quarter of them with each.
SAMPLES = 5_000
LONG = [*((algorithm, "heterogeneous") for algorithm in HETEROGENEOUS), ("sd", "same")]


def sampled_fit(
    algorithm: str, vocabularies: str, settings: SamplingSettings, seed: int, rule: type[Rejection] = Rejection
) -> Fit:
    pair = tiny_pair(vocabularies, order=1)
    drawing = rule(Randomness(torch.Generator().manual_seed(seed)))
    ids = token_ids(pair.commits(algorithm, drawing, settings, SAMPLES, lookahead=3, eos=False))
    assert len(ids) == SAMPLES
    return fit(pair, ids, settings)


@thorough
@pytest.mark.parametrize(("algorithm", "vocabularies"), LONG)
def test_long_samples_follow_the_targets_law(algorithm: str, vocabularies: str) -> None:
    assert_fit(
        [sampled_fit(algorithm, vocabularies, settings, seed) for seed, settings in enumerate(SETTINGS.values(), 11)]
    )


def test_long_samples_catch_a_wrong_verifier() -> None:
    wrong = sampled_fit("tli", "heterogeneous", SETTINGS["temperature 1"], 11, ForgetsTheResidual)
    assert wrong.p_value < 1e-6


@cache
def plain_text(
    vocabularies: str, settings: SamplingSettings, seed: int | None, tokens: int, order: int = 2, eos: bool = False
) -> list[int]:
    """What plain decoding writes with the noise of ``seed``, or greedily without."""
    return token_ids(tiny_pair(vocabularies, order).commits("ar", Coupled(seed), settings, tokens, eos=eos))


@pytest.mark.parametrize(
    "settings", breadth(SETTINGS.values(), quick=[SETTINGS["temperature 0.7, top-p 0.9"]]), ids=SETTINGS
)
@pytest.mark.parametrize(("algorithm", "vocabularies"), FEWER_CASES)
def test_a_coupled_text_depends_on_the_seed_alone(
    algorithm: str, vocabularies: str, settings: SamplingSettings
) -> None:
    pair = tiny_pair(vocabularies)
    for seed in range(50):
        text = token_ids(pair.commits(algorithm, Coupled(seed), settings, 12, lookahead=1 + seed % 4))
        assert text == plain_text(vocabularies, settings, seed, 12, eos=True)


@thorough
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("algorithm", "vocabularies"), LONG)
def test_a_long_coupled_text_does_too(algorithm: str, vocabularies: str, settings: SamplingSettings) -> None:
    commits = tiny_pair(vocabularies, order=1).commits(algorithm, Coupled(11), settings, 2_000, lookahead=3, eos=False)
    assert token_ids(commits) == plain_text(vocabularies, settings, 11, 2_000, order=1)


@thorough
def test_seeded_samples_follow_the_targets_law() -> None:
    pair = tiny_pair("heterogeneous", order=1)
    fits = [
        fit(pair, plain_text("heterogeneous", settings, seed, SAMPLES, order=1), settings)
        for seed, settings in enumerate(SETTINGS.values(), 11)
    ]
    assert_fit(fits)


@pytest.mark.parametrize(("algorithm", "vocabularies"), CASES)
@pytest.mark.parametrize("lookahead", [1, 4, 11])
def test_greedy_text_is_plain_decodings(algorithm: str, vocabularies: str, lookahead: int) -> None:
    pair, greedy = tiny_pair(vocabularies), SamplingSettings()
    text = token_ids(pair.commits(algorithm, Coupled(None), greedy, 60, lookahead, eos=False))
    assert text == plain_text(vocabularies, greedy, None, 60)


def test_standard_speculation_refuses_vocabularies_that_only_have_the_same_size() -> None:
    pair = tiny_pair("equal size")
    assert len(pair.target_vocabulary) == len(pair.drafter_vocabulary)
    with pytest.raises(UsageError, match="id 1 is 'a' in the target and 'bb' in the drafter"):
        pair.commits("sd", Coupled(None), SamplingSettings(), 5)


def test_standard_speculation_refuses_a_drafter_that_knows_more_tokens() -> None:
    pair = TinyPair(vocabulary(["a", "b"]), vocabulary(["a", "b", "ab"]))
    with pytest.raises(UsageError, match="the target has 3 tokens and the drafter 4"):
        pair.commits("sd", Coupled(None), SamplingSettings(), 5)
