"""String-level rejection sampling: against the paper's own formulation, and what is kept on disk for it."""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from pathlib import Path

import pytest
import torch

from hsd_cli.decoding.sampling import Warper
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.drafting.projection import Projection
from hsd_cli.drafting.slrs import PushForward
from hsd_cli.storage import cache_folder
from hsd_cli.vocab.overlap import overlap
from hsd_cli.vocab.segmentation import Segment, segment, segmentation
from hsd_cli.vocab.vocabulary import Vocabulary
from tests.laws import VOCABULARIES, TinyPair, tiny_pair
from tests.tiny import TableModel, vocabulary

CPU = torch.device("cpu")


def drafter_model(pair: TinyPair) -> TableModel:
    return TableModel(len(pair.drafter_vocabulary), seed=pair.seed + 1)


def drawable(pair: TinyPair, segments: list[Segment], context: list[int]) -> torch.Tensor:
    """The drafter's distribution over the ids that the target can spell."""
    excluded = torch.tensor([not tokens for tokens in segments])
    return drafter_model(pair).logits_after(context).masked_fill(excluded, -torch.inf).softmax(-1)


def reference_psi(pair: TinyPair, segments: list[Segment], context: list[int], steps: int) -> torch.Tensor:
    """Step 3 of Algorithm 3: every drafted sequence of ``steps`` tokens, by the first target token of its text.

    The map to the target's tokens takes each drafted token for itself.
    """
    psi: defaultdict[int, float] = defaultdict(float)
    possible = [index for index, tokens in enumerate(segments) if tokens]
    for drafted in product(possible, repeat=steps):
        probability = 1.0
        for place, token in enumerate(drafted):
            probability *= float(drawable(pair, segments, [*context, *drafted[:place]])[token])
        psi[segments[drafted[0]][0]] += probability
    return torch.tensor([psi[token] for token in range(len(pair.target_vocabulary))])


def reference_law(pair: TinyPair, psi: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Steps 4 and 5: the law of the one token that Algorithm 3 returns."""
    kept = torch.minimum(p, psi)
    residual = p - kept
    return kept + (1 - kept.sum()) * residual / residual.sum() if residual.sum() > 0 else kept


def sizes(pair: TinyPair) -> tuple[int, int]:
    return len(pair.drafter_vocabulary), len(pair.target_vocabulary)


def push_forward(pair: TinyPair, segments: list[Segment]) -> PushForward:
    return PushForward(segments, sizes(pair), (CPU, CPU))


def psi_of(projection: Projection, logits: torch.Tensor) -> torch.Tensor:
    """For drafter logits ``[D]``, without any settings."""
    warper = Warper(SamplingSettings(1.0), len(logits), CPU)
    weights = projection.weights(warper, logits[None], torch.empty(0, dtype=torch.int64))
    return projection.psi(weights[None])[0]


@pytest.mark.parametrize("vocabularies", VOCABULARIES)
@pytest.mark.parametrize("steps", [1, 2])
def test_the_first_psi_is_the_papers(vocabularies: str, steps: int) -> None:
    pair = tiny_pair(vocabularies)
    segments = segment(pair.drafter_vocabulary, pair.target_vocabulary)
    context = pair.drafter_vocabulary.encode(b"ab") or [0]
    psi = psi_of(push_forward(pair, segments).first, drafter_model(pair).logits_after(context))
    expected = reference_psi(pair, segments, context, steps)
    assert torch.allclose(psi, expected, atol=1e-6)
    p = pair.target().logits_after(pair.prompt).softmax(-1)
    assert torch.allclose(reference_law(pair, psi, p), p, atol=1e-6)


def test_later_psi_are_conditional_on_what_was_revealed() -> None:
    target, drafter = vocabulary(["a", "b", "c"]), vocabulary(["ab", "abc", "abb", "ac", "a", "b"])
    segments = segment(drafter, target)
    q = torch.rand(len(drafter), generator=torch.Generator().manual_seed(3))
    rows = PushForward(segments, (len(drafter), len(target)), (CPU, CPU))
    weights = q[rows.first.drafter_ids]
    spelled = {bytes(name): index for index, name in enumerate(drafter.token_bytes) if name}
    a, b, c = 1, 2, 3
    for drawn in (b"abc", b"abb"):
        column = rows.first.drafter_ids.tolist().index(spelled[drawn])
        assert rows.segments[column] == segments[spelled[drawn]]
        after_a, after_ab = rows.following(weights, column)
        goes_on = [spelled[name] for name in (b"ab", b"abc", b"abb", b"ac")]  # not b"a", which ends there
        assert after_a[b] == pytest.approx(float(q[goes_on[:3]].sum() / q[goes_on].sum()))
        assert after_a[c] == pytest.approx(float(q[spelled[b"ac"]] / q[goes_on].sum()))
        both = q[spelled[b"abc"]] + q[spelled[b"abb"]]
        assert after_ab[[a, b, c]].tolist() == pytest.approx(
            [0.0, float(q[spelled[b"abb"]] / both), float(q[spelled[b"abc"]] / both)]
        )


@pytest.mark.parametrize("vocabularies", VOCABULARIES)
@pytest.mark.parametrize("seed", range(20))
def test_expected_acceptance_is_never_below_the_union_baselines(vocabularies: str, seed: int) -> None:
    pair = tiny_pair(vocabularies)
    drafter_size, target_size = sizes(pair)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(drafter_size, generator=generator)
    p = (torch.randn(target_size, generator=generator) * 1.5).softmax(-1)
    both = overlap(pair.drafter_vocabulary, pair.target_vocabulary)
    union = psi_of(Projection(both.pairs, sizes(pair), (CPU, CPU), void=True), logits)
    psi = psi_of(push_forward(pair, segment(pair.drafter_vocabulary, pair.target_vocabulary)).first, logits)
    assert torch.minimum(p, psi).sum() >= torch.minimum(p, union).sum() - 1e-6


def test_a_segment_is_the_one_token_with_the_bytes_where_there_is_one() -> None:
    target = vocabulary(["a", "b", "ab", "<0x63>", "</s>"])
    drafter = vocabulary(["ab", "ba", "<0x61>", "c", "x", "</s>"])
    spelled = dict(zip(["<unk>", "ab", "ba", "<0x61>", "c", "x", "</s>"], segment(drafter, target), strict=True))
    assert spelled["ab"] == (3,)
    assert spelled["ba"] == (2, 1)
    assert spelled["<0x61>"] == (1,)
    assert spelled["c"] == (4,)
    assert spelled["x"] == ()  # nothing spells it
    assert spelled["</s>"] == (5,)  # by its role
    assert spelled["<unk>"] == ()


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Vocabulary, Vocabulary, Path]:
    monkeypatch.setenv("HSD_CACHE", str(tmp_path / "cache"))
    drafter, target = vocabulary(["ab", "ba", "a"]), vocabulary(["a", "b"])
    segmentation(drafter, target)
    (file,) = (cache_folder() / "segments").iterdir()
    return drafter, target, file


def test_the_table_is_kept_and_read_again(
    cached: tuple[Vocabulary, Vocabulary, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    drafter, target, _ = cached
    expected = segment(drafter, target)
    monkeypatch.setattr("hsd_cli.vocab.segmentation.segment", lambda *_: pytest.fail("worked out again"))
    assert segmentation(drafter, target) == expected


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 200])
def test_a_damaged_table_is_worked_out_again(cached: tuple[Vocabulary, Vocabulary, Path], damage: bytes) -> None:
    drafter, target, file = cached
    whole = file.read_bytes()
    for data in (damage, whole[:-4], whole[:40] + b"\1" + whole[41:]):
        file.write_bytes(data)
        assert segmentation(drafter, target) == segment(drafter, target)
        assert file.read_bytes() == whole


def test_tables_of_other_tokenizers_are_other_files(cached: tuple[Vocabulary, Vocabulary, Path]) -> None:
    drafter, target, file = cached
    assert segmentation(target, drafter) == segment(target, drafter)
    assert len(list(file.parent.iterdir())) == 2


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HSD_CACHE", str(tmp_path / "file"))
    drafter, target = vocabulary(["ab"]), vocabulary(["a", "b"])
    assert segmentation(drafter, target) == [(), (1, 2)]
