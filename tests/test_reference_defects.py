"""What other implementations of these algorithms got wrong. Each test's docstring names the defect."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken

from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.drafting.context import TranslatedContext
from hsd_cli.drafting.projection import Projection
from hsd_cli.drafting.registry import first_difference
from hsd_cli.engine import Engine, Request
from hsd_cli.runtime.loading import load_model
from hsd_cli.vocab.overlap import overlap
from hsd_cli.vocab.tokenizer import ModelTokenizer
from hsd_cli.vocab.vocabulary import Vocabulary
from tests.cli import LETTERS, PAIRS, checkpoint
from tests.laws import SETTINGS, exact_law, tiny_pair
from tests.test_losslessness import iteration_law, largest_difference
from tests.tiny import vocabulary
from tests.tokenizer_families import FAMILIES, describe, vocabulary_of

SAMPLED = SETTINGS["temperature 1"]


@pytest.mark.parametrize("vocabularies", ["heterogeneous", "subset", "duplicates", "equal size"])
def test_sampled_text_across_vocabularies_has_the_targets_law(vocabularies: str) -> None:
    """Sampled text was drawn from the wrong distribution, and a drafter with a subset of the tokens crashed."""
    pair = tiny_pair(vocabularies)
    assert largest_difference(iteration_law(pair, "tli", SAMPLED), exact_law(pair, SAMPLED, 3)) < 1e-6


@pytest.mark.parametrize("family", ["byte-level BPE", "SentencePiece BPE"])
def test_the_order_in_which_a_vocabulary_is_listed_does_not_matter(family: str) -> None:
    """Rows of the pruned head followed the order of a dictionary, the way back that of the ids."""
    description = describe(FAMILIES[family]())
    listed = list(description["model"]["vocab"].items())
    random.Random(1).shuffle(listed)
    shuffled = Vocabulary(description | {"model": description["model"] | {"vocab": dict(listed)}})
    target = vocabulary_of("byte-level BPE with its own pattern")
    assert sorted(overlap(shuffled, target).pairs) == sorted(overlap(Vocabulary(description), target).pairs)


def test_a_drafter_is_never_changed_by_being_used(tmp_path: Path) -> None:
    """A sampled text replaced the drafter's head and embeddings for good; a greedy one after it crashed."""
    engine = Engine(load_model(checkpoint(tmp_path / "t")), load_model(checkpoint(tmp_path / "d", PAIRS)))
    assert engine.drafter is not None
    before = {name: weights.clone() for name, weights in engine.drafter.model.state_dict().items()}

    def text(**options: object) -> str:
        request = Request("abc", max_new_tokens=20, lookahead=4, **options)  # type: ignore[arg-type]
        return "".join(commit.text for commit in engine.generate(request).commits)

    greedy = text(algorithm="slem")
    for algorithm in ("tli", "union", "slrs"):
        text(algorithm=algorithm, sampling=SamplingSettings(temperature=1.0))
        assert text(algorithm="slem") == text(algorithm="tli") == greedy
    after = engine.drafter.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(weights, after[name]) for name, weights in before.items())


def test_vocabularies_are_told_apart_by_their_tokens_and_not_by_their_size() -> None:
    """Equal sizes passed for equal vocabularies, unequal padding for different ones."""
    pair = tiny_pair("equal size")
    assert first_difference(pair.target_vocabulary, pair.drafter_vocabulary) is not None
    padded = tiny_pair("same")
    padded.target_padding, padded.drafter_padding = 3, 1
    assert largest_difference(iteration_law(padded, "sd", SAMPLED), exact_law(padded, SAMPLED, 3)) < 1e-6


def test_probabilities_of_tokens_with_the_same_bytes_add_up() -> None:
    """Of two drafter tokens that stand for one target token only one's probability was kept."""
    drafter, target = vocabulary(["a", "<0x61>", "b"]), vocabulary(["a", "b"])
    both = overlap(drafter, target)
    shared = Projection(both.pairs, (len(drafter), len(target)), (torch.device("cpu"),) * 2)
    weights = torch.tensor([0.0, 0.3, 0.5, 0.2])[shared.drafter_ids]
    assert shared.psi(weights[None])[0].tolist() == pytest.approx([0.0, 0.8, 0.2])


@pytest.mark.parametrize("spelled", [b" the", b"\n", b"\t", *(bytes([byte]) for byte in (0xC3, 0xE6, 0xFF))])
def test_spaces_newlines_and_bytes_match_across_families(spelled: bytes) -> None:
    """Newlines, tabs and everything outside ASCII never matched between byte-level and SentencePiece vocabularies."""
    drafter, target = vocabulary_of("SentencePiece BPE"), vocabulary_of("byte-level BPE")
    assert spelled in {drafter.token_bytes[index] for index, _ in overlap(drafter, target).pairs}


def test_runs_of_spaces_match_across_families() -> None:
    """Of a run of spaces only the first was translated, so that indentation never matched."""
    tokenizers = FAMILIES["byte-level BPE"](), FAMILIES["SentencePiece BPE"]()
    for tokenizer in tokenizers:
        tokenizer.add_tokens([AddedToken("    ", normalized=False)])
    drafter, target = (Vocabulary(describe(tokenizer)) for tokenizer in tokenizers)
    assert b"    " in {drafter.token_bytes[index] for index, _ in overlap(drafter, target).pairs}


def test_what_merely_looks_alike_is_not_the_same_token() -> None:
    """A byte-level token is written in a byte alphabet: its spelling for "é" is another vocabulary's real "Ã©"."""
    byte_level, characters = FAMILIES["byte-level BPE"](), vocabulary(["Ã©", "Ġ", "x"])
    assert byte_level.token_to_id("Ã©") is not None
    assert overlap(characters, Vocabulary(describe(byte_level))).pairs == [(3, byte_level.token_to_id("x"))]


def test_end_of_text_matches_whatever_it_is_called() -> None:
    """Special tokens matched by spelling alone, so that end of text was outside what both have."""
    drafter, target = vocabulary_of("SentencePiece BPE"), vocabulary_of("byte-level BPE with chat markers")
    assert (drafter.eos_ids[0], target.eos_ids[0]) in overlap(drafter, target).pairs


def test_no_beginning_or_end_of_text_is_strewn_into_the_drafters_context() -> None:
    """Re-encoding added a BOS each time; tokens that the drafter lacks became its end of text."""
    target, drafter = vocabulary_of("byte-level BPE"), vocabulary_of("SentencePiece BPE")
    context = TranslatedContext(drafter, target, drafter.encode(b"x"))
    text = "日本語, <|endoftext|> שלום  x  y"
    for token in [*target.encode(text.encode()), *target.eos_ids]:
        context.commit([token], [])
    assert all(drafter.token_bytes[index] for index in context.ids)
    assert drafter.text_bytes(context.ids) == b"x" + text.encode()


def test_the_drafter_reads_its_own_chat_markers(tmp_path: Path) -> None:
    """The prompt was translated without special tokens: the drafter never saw who was speaking."""
    template = "{% for m in messages %}<turn>{{ m['content'] }}{% endfor %}<turn>"
    name = checkpoint(tmp_path, [*LETTERS, "<turn>"], special=["<turn>"], chat_template=template)
    ids = ModelTokenizer.load(name).render("ab", chat=True).ids
    assert ids == [28, 1, 2, 28]


@pytest.mark.parametrize("algorithm", ["slem", "tli", "slrs"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_algorithm_is_the_users_choice_at_any_temperature(
    tmp_path: Path, algorithm: str, temperature: float
) -> None:
    """Greedy text meant one algorithm, sampled text the other, with no way to choose."""
    engine = Engine(load_model(checkpoint(tmp_path / "t")), load_model(checkpoint(tmp_path / "d", PAIRS)))
    sampling = SamplingSettings(temperature=temperature)
    request = Request("abc", algorithm=algorithm, max_new_tokens=12, lookahead=3, sampling=sampling)
    assert algorithm in {commit.algorithm for commit in engine.generate(request).commits}
