"""Every token's bytes, and encoding in the middle of a text, for every family of tokenizers."""

from __future__ import annotations

import json
import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_families import FAMILIES, LETTERS, SPACE_MARK, byte_level_bpe, describe, unigram, write_rank_file
from tokenizers import Tokenizer

from hsd_cli.vocab.source import read_vocabulary
from hsd_cli.vocab.vocabulary import Vocabulary

deterministic = settings(derandomize=True, deadline=None, max_examples=60)

CODE = [
    "def f(x):\n    return x ** 2\n",
    "\tif (a != b) {\r\n\t\treturn;\n\t}",
    "        deeply\n            indented",
    "<s> </s> <0x41> <|endoftext|> [SEP]",
    "👩‍💻 ｆｕｌｌ　ｗｉｄｔｈ \u202e",
]
ANY_TEXT = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SPACE_MARK)),
        st.text(" \n\t\r\x00\x0b\x1b\x7f\x85\u00a0\u3000"),
        st.sampled_from(CODE),
    ),
    max_size=4,
).map("".join)
WORD = st.text(LETTERS, min_size=1, max_size=8)
SPACES_FIRST = st.lists(WORD.map(" {}".format)).map("".join)
# What a family can spell, where that is not everything.
SPELLABLE = {
    "Unigram": st.text(LETTERS + " "),
    "WordPiece": SPACES_FIRST,
    "BPE with a suffix": st.lists(WORD.map("{} ".format)).map("".join),
    "characters": st.text(LETTERS + " "),
    "words": st.lists(st.sampled_from([" the", " cat", " x"])).map("".join),
}

every_family = pytest.mark.parametrize("family", FAMILIES)


@cache
def tokenizer_of(family: str) -> Tokenizer:
    return FAMILIES[family]()


@cache
def vocabulary_of(family: str) -> Vocabulary:
    return Vocabulary(describe(tokenizer_of(family)))


def library_text(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    """The library's own decoding, behind an ``x`` so that what it trims at the start of a text stays."""
    start = tokenizer.encode("x ", add_special_tokens=False).ids[:2]
    return tokenizer.decode([*start, *ids]).encode()


@every_family
@deterministic
@given(data=st.data())
def test_encoding_spells_the_text(family: str, data: st.DataObject) -> None:
    text = data.draw(SPELLABLE.get(family, ANY_TEXT))
    vocabulary = vocabulary_of(family)
    assert vocabulary.text_bytes(vocabulary.encode(text.encode())) == text.encode()
