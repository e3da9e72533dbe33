"""Which tokens match, which do not, and which of several stand for the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hsd_cli.vocab.overlap import Overlap, overlap
from hsd_cli.vocab.vocabulary import Vocabulary
from tests.tokenizer_families import byte_level_bpe, metaspace_bpe, unigram, vocabulary, word_piece


def spaced(
    tokens: Sequence[str], special: Sequence[str] = (), eos: Sequence[int] = (), merges: Sequence[str] = ()
) -> Vocabulary:
    """A SentencePiece-like BPE with byte fallback and exactly these tokens, ids in order."""
    ids = {token: index for index, token in enumerate(tokens)}
    added = [
        {"id": ids[name], "content": name, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for name in special
    ]
    description: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {"type": "BPE", "vocab": ids, "merges": list(merges), "byte_fallback": True},
    }
    return Vocabulary(description, eos)


def test_tokens_match_by_bytes_and_not_by_spelling() -> None:
    drafter, target = vocabulary(metaspace_bpe()), vocabulary(byte_level_bpe())
    both = overlap(drafter, target)
    for drafter_id, target_id in both.pairs:
        assert drafter.token_bytes[drafter_id] == target.token_bytes[target_id]
    matched = {drafter.token_bytes[drafter_id] for drafter_id, _ in both.pairs}
    assert {b" the", b"\n", b" cat", b"\xe6"} <= matched


def test_every_shared_drafter_token_is_in_exactly_one_pair() -> None:
    drafter, target = vocabulary(unigram()), vocabulary(byte_level_bpe())
    spelled_by_target = set(target.token_bytes) - {None}
    expected = [index for index, spelled in enumerate(drafter.token_bytes) if spelled in spelled_by_target]
    assert sorted(index for index, _ in overlap(drafter, target).pairs) == expected


def test_a_vocabulary_matches_itself() -> None:
    both = vocabulary(byte_level_bpe(), eos="<|endoftext|>")
    assert sorted(overlap(both, both).pairs) == [(index, index) for index in range(len(both))]


def test_word_pieces_in_a_word_match_tokens_without_a_space() -> None:
    drafter, target = vocabulary(word_piece()), vocabulary(byte_level_bpe())
    pairs = dict(overlap(drafter, target).pairs)
    spelled = {drafter.token_bytes[d]: target.token_bytes[t] for d, t in pairs.items()}
    assert spelled[b" the"] == b" the"
    assert spelled[b"a"] == b"a"


def test_several_drafter_tokens_share_one_target_token() -> None:
    drafter = spaced(["<0x61>", "a", "b"])
    target = spaced(["b", "a"])
    assert sorted(overlap(drafter, target).pairs) == [(0, 1), (1, 1), (2, 0)]


def test_the_token_that_the_tokenizer_uses_stands_for_its_duplicates() -> None:
    drafter = spaced(["<0x61>", "a"])
    target = spaced(["<0x61>", "c", "a"])
    both = overlap(drafter, target)
    assert both.pairs == [(0, 2), (1, 2)]
    assert both.representative == {0: 1, 2: 1}


def test_the_lowest_id_stands_for_duplicates_that_the_tokenizer_does_not_use() -> None:
    # The tokenizer writes " ab" with three tokens, since no merge leads to "▁ab".
    twins = spaced(["a", "b", "▁", "xab", "▁ab", "!ab"])
    twins.token_bytes[3] = twins.token_bytes[5] = b" ab"
    other = spaced(["▁ab"])
    assert overlap(twins, other).representative == {0: 3}
    assert overlap(other, twins).pairs == [(0, 3)]


def test_end_of_text_matches_by_role() -> None:
    drafter = spaced(["a", "<end>", "<turn>"], special=["<end>", "<turn>"], eos=[2, 1])
    target = spaced(["</s>", "a", "<eot>"], special=["</s>", "<eot>"], eos=[2, 0])
    both = overlap(drafter, target)
    assert sorted(both.pairs) == [(0, 1), (1, 2), (2, 2)]
    assert both.representative == {1: 0, 0: 2, 2: 2}


def test_end_of_text_does_not_match_by_bytes() -> None:
    # Here </s> is an ordinary token of both vocabularies, and only one of them ends its texts with it.
    drafter = spaced(["a", "</s>"], eos=[1])
    target = spaced(["</s>", "a", "<end>"], special=["<end>"], eos=[2])
    assert sorted(overlap(drafter, target).pairs) == [(0, 1), (1, 2)]


def test_without_an_end_of_text_on_both_sides_there_is_no_such_pair() -> None:
    drafter = spaced(["a", "<end>"], special=["<end>"], eos=[1])
    assert overlap(drafter, spaced(["a"])) == Overlap([(0, 0)], {0: 0})
    assert overlap(spaced(["a"]), drafter) == Overlap([(0, 0)], {0: 0})


@pytest.mark.parametrize("name", ["<s>", "<|im_start|>"])
def test_special_tokens_of_the_same_name_do_not_match(name: str) -> None:
    side = spaced(["a", name], special=[name])
    assert overlap(side, side).pairs == [(0, 0)]


def test_a_special_token_does_not_match_an_ordinary_one_with_its_name() -> None:
    assert overlap(spaced(["<s>"]), spaced(["<s>"], special=["<s>"])).pairs == []
