"""Every token's bytes, and encoding in the middle of a text, for every family of tokenizers."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from hsd_cli.vocab.source import read_vocabulary
from hsd_cli.vocab.vocabulary import Vocabulary
from tests.tokenizer_families import FAMILIES, LETTERS, SPACE_MARK, byte_level_bpe, describe, unigram, write_rank_file

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


@every_family
@given(data=st.data())
def test_encoding_spells_the_text(family: str, data: st.DataObject) -> None:
    text = data.draw(SPELLABLE.get(family, ANY_TEXT))
    vocabulary = vocabulary_of(family)
    assert vocabulary.text_bytes(vocabulary.encode(text.encode())) == text.encode()


@every_family
def test_every_token_spells_what_the_library_decodes(family: str) -> None:
    tokenizer, vocabulary = tokenizer_of(family), vocabulary_of(family)
    start = tokenizer.encode("x x", add_special_tokens=False).ids
    special = {token["id"] for token in describe(tokenizer)["added_tokens"] if token["special"]}
    compared = 0
    for index, spelled in enumerate(vocabulary.token_bytes):
        if spelled is None:
            assert index in special or tokenizer.id_to_token(index) in ("<unk>", "[UNK]")
        elif is_text(spelled):
            # Tokens on both sides, since the library trims the two ends of a text.
            assert tokenizer.decode([*start, index, *start]).encode().strip() == (
                vocabulary.text_bytes([*start, index, *start]).strip()
            )
            compared += 1
    assert compared >= len(vocabulary) / 3


@every_family
@given(data=st.data())
def test_token_sequences_spell_what_the_library_decodes(family: str, data: st.DataObject) -> None:
    tokenizer, vocabulary = tokenizer_of(family), vocabulary_of(family)
    whole = [index for index, spelled in enumerate(vocabulary.token_bytes) if spelled and is_text(spelled)]
    # A plain word first: the library treats the first token of a text in ways of its own.
    ids = [*vocabulary.encode(b" x"), *data.draw(st.lists(st.sampled_from(whole)))]
    ids += vocabulary.encode(data.draw(SPELLABLE.get(family, ANY_TEXT)).encode())
    expected, spelled = tokenizer.decode(ids).encode(), vocabulary.text_bytes(ids)
    if family == "BPE with a suffix":
        spelled = spelled.removesuffix(b" ")
    assert expected in (spelled, spelled.removeprefix(b" "))


def test_word_pieces_are_cleaned_up_where_the_library_does_it() -> None:
    pieces = ["[UNK]", "it", "##s", "'s", ".", "fine", "n't", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    ids = list(range(1, 7))
    for cleanup in (True, False):
        tokenizer.decoder = decoders.WordPiece(cleanup=cleanup)
        assert Vocabulary(describe(tokenizer)).text_bytes(ids) == b" " + tokenizer.decode(ids).encode()


def test_tokens_are_replaced_and_stripped_as_the_library_does_it() -> None:
    words = ["[UNK]", "_a__b", "###c##", "a#", "#a", "__", "c", "(x)y"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    replaced = decoders.Replace(Regex(r"_+|\(x\)"), r"\0 ")  # which is no reference to a group
    tokenizer.decoder = decoders.Sequence([replaced, decoders.Strip("#", 2, 1)])
    vocabulary = Vocabulary(describe(tokenizer))
    for index in range(1, len(words)):
        assert vocabulary.token_bytes[index] == tokenizer.decode([index]).encode()


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# In a Unigram vocabulary the order is the numbering.
@pytest.mark.parametrize("family", [family for family in FAMILIES if "Unigram" not in family])
def test_the_order_of_the_vocabulary_in_its_file_does_not_matter(family: str) -> None:
    description = describe(tokenizer_of(family))
    tokens = list(description["model"]["vocab"].items())
    random.Random(0).shuffle(tokens)
    shuffled = Vocabulary(description | {"model": description["model"] | {"vocab": dict(tokens)}})
    assert shuffled.token_bytes == vocabulary_of(family).token_bytes
    assert shuffled.encode(b" the cat") == vocabulary_of(family).encode(b" the cat")
    assert shuffled.fingerprint == vocabulary_of(family).fingerprint


@given(ANY_TEXT, st.binary(max_size=8))
def test_a_byte_level_vocabulary_spells_any_bytes(text: str, noise: bytes) -> None:
    vocabulary = vocabulary_of("byte-level BPE")
    data = text.encode() + noise
    assert vocabulary.text_bytes(vocabulary.encode(data)) == data


def test_bytes_that_no_token_spells_are_left_out() -> None:
    vocabulary = vocabulary_of("characters")
    assert vocabulary.text_bytes(vocabulary.encode(b"ab\xffc")) == b"abc"


@pytest.mark.parametrize("family", ["SentencePiece BPE", "metaspace BPE", "Unigram with byte fallback"])
def test_text_in_the_middle_gets_no_dummy_prefix_and_no_bos(family: str) -> None:
    vocabulary = vocabulary_of(family)
    assert vocabulary.text_bytes(vocabulary.encode(b"cat")) == b"cat"
    assert tokenizer_of(family).encode("cat").ids != vocabulary.encode(b"cat")


@pytest.mark.parametrize("name", ["<s>", "</s>", "<unk>"])
@pytest.mark.parametrize("family", ["SentencePiece BPE", "metaspace BPE", "Unigram with byte fallback"])
def test_the_name_of_a_special_token_is_plain_text(family: str, name: str) -> None:
    vocabulary = vocabulary_of(family)
    ids = vocabulary.encode(f"a {name} b".encode())
    assert tokenizer_of(family).token_to_id(name) not in ids
    assert vocabulary.text_bytes(ids) == f"a {name} b".encode()


def test_special_and_unknown_tokens_have_no_bytes_but_a_name() -> None:
    vocabulary = vocabulary_of("SentencePiece BPE")
    assert vocabulary.token_bytes[:3] == [None, None, None]
    assert [vocabulary.name(index) for index in range(3)] == ["<unk>", "<s>", "</s>"]
    assert vocabulary.token_bytes[3:5] == [b"\x00", b"\x01"]


def with_added(description: dict[str, Any], tokens: list[tuple[int, str, bool]]) -> dict[str, Any]:
    options = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": index, "content": content, "special": special, **options} for index, content, special in tokens]
    return description | {"added_tokens": [*description["added_tokens"], *added]}


@pytest.mark.parametrize("build", [byte_level_bpe, unigram])
def test_added_tokens_keep_their_ids_across_holes(build: Callable[[], Tokenizer]) -> None:
    description = describe(build())
    vocabulary = Vocabulary(with_added(description, [(1000, "<tool>", False), (1005, "<|end|>", True)]))
    assert len(vocabulary) == 1006
    assert vocabulary.token_bytes[999] is None
    assert vocabulary.token_bytes[1000] == b"<tool>"
    assert vocabulary.token_bytes[1005] is None
    ids = vocabulary.encode(b"a<tool>b<|end|>")
    assert 1000 in ids
    assert 1005 not in ids
    assert vocabulary.text_bytes(ids) == b"a<tool>b<|end|>"


def test_ids_past_the_vocabulary_spell_nothing() -> None:
    vocabulary = vocabulary_of("bytes")
    assert vocabulary.text_bytes([104, 105, 256, 100_000]) == b"hi"


def test_all_ids_with_the_same_bytes_are_found() -> None:
    vocabulary = vocabulary_of("SentencePiece BPE")
    letter = tokenizer_of("SentencePiece BPE").token_to_id("a")
    assert vocabulary.repeated_ids[b"a"] == [3 + ord("a"), letter]
    assert vocabulary.first_ids[b"a"] == 3 + ord("a")
    assert vocabulary.encode(b"a") == [letter]


def test_a_rank_file_is_the_tokenizer_it_came_from(tmp_path: Path) -> None:
    pattern = r"\p{N}{1,3}|\s+(?!\S)|\s+| ?[^\s\p{N}]+"
    path = write_rank_file(byte_level_bpe(pattern), tmp_path / "some.tiktoken")
    ranks, original = read_vocabulary(str(path)), vocabulary_of("byte-level BPE with its own pattern")
    assert ranks.token_bytes == original.token_bytes[1:]  # all but the special token
    assert [index + 1 for index in ranks.encode(b" the cat sat")] == original.encode(b" the cat sat")


@given(ANY_TEXT)
def test_a_rank_file_spells_any_text(text: str) -> None:
    vocabulary = rank_file_vocabulary()
    assert vocabulary.text_bytes(vocabulary.encode(text.encode())) == text.encode()


@cache
def rank_file_vocabulary() -> Vocabulary:
    with TemporaryDirectory() as folder:
        return read_vocabulary(str(write_rank_file(byte_level_bpe(), Path(folder, "tokenizer.model"))))


def test_an_unknown_decoder_is_an_error_and_not_a_guess() -> None:
    description = describe(byte_level_bpe()) | {"decoder": {"type": "CTC"}}
    with pytest.raises(ValueError, match="CTC"):
        Vocabulary(description)


@pytest.mark.parametrize("seed", range(3))
def test_random_byte_level_ids_spell_the_bytes_of_their_characters(seed: int) -> None:
    # The library replaces bytes that are not UTF-8, so this compares after the same replacement.
    tokenizer, vocabulary = tokenizer_of("byte-level BPE"), vocabulary_of("byte-level BPE")
    ids = random.Random(seed).choices(range(1, len(vocabulary)), k=200)
    assert tokenizer.decode(ids) == vocabulary.text_bytes(ids).decode("utf-8", "replace")


def test_what_trims_or_pads_a_whole_text_is_off_in_the_middle() -> None:
    tokenizer = byte_level_bpe()
    tokenizer.normalizer = normalizers.Strip()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    vocabulary = Vocabulary(describe(tokenizer))
    for data in (b"cat", b" cat", b"cat "):
        assert vocabulary.text_bytes(vocabulary.encode(data)) == data


def test_added_tokens_outside_the_byte_alphabet_stand_for_themselves() -> None:
    tokenizer = byte_level_bpe()
    tokens = ["é b", "a\u00a0b", "日本 語"]
    tokenizer.add_tokens(tokens)
    vocabulary = Vocabulary(describe(tokenizer))
    for token in tokens:
        index = tokenizer.token_to_id(token)
        assert vocabulary.token_bytes[index] == tokenizer.decode([index]).encode() == token.encode()


def test_the_unknown_token_has_no_bytes_even_where_it_is_not_marked_as_special() -> None:
    assert vocabulary_of("words").token_bytes[0] is None
    assert vocabulary_of("Unigram").token_bytes[0] is None


def rank_vocabulary(path: Path, tokens: list[bytes]) -> Vocabulary:
    path.write_bytes(b"".join(b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)))
    return read_vocabulary(str(path))


def test_ranks_decide_which_pair_is_merged_first(tmp_path: Path) -> None:
    vocabulary = rank_vocabulary(tmp_path / "ranks", [b"a", b"b", b"c", b"d", b"bc", b"ab"])
    assert vocabulary.encode(b"abcd") == [0, 4, 3]


def test_a_whole_word_in_a_rank_file_needs_no_merges(tmp_path: Path) -> None:
    vocabulary = rank_vocabulary(tmp_path / "ranks", [b"a", b"b", b"c", b"abc"])
    assert vocabulary.encode(b"abc") == [3]


@pytest.mark.parametrize(
    ("family", "name"),
    {
        "byte-level BPE": "byte-level BPE",
        "bytes": "bytes",
        "metaspace BPE": "SentencePiece BPE with byte fallback",
        "Unigram": "SentencePiece Unigram",
        "WordPiece": "WordPiece",
        "BPE with a suffix": "BPE",
        "characters": "characters",
    }.items(),
)
def test_families_have_names(family: str, name: str) -> None:
    assert vocabulary_of(family).family == name


def test_byte_tokens_alone_are_a_byte_model() -> None:
    description = describe(tokenizer_of("metaspace BPE"))
    description["model"] |= {"vocab": {f"<0x{byte:02X}>": byte for byte in range(256)}, "merges": []}
    vocabulary = Vocabulary(description | {"added_tokens": []})
    assert vocabulary.family == "bytes"
    assert vocabulary.encode("é".encode()) == [0xC3, 0xA9]
