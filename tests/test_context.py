"""The drafter's context: the same bytes as the target's, re-encoded only where they are new."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsd_cli.drafting.context import MirroredContext, TranslatedContext
from hsd_cli.models.locate import EMBEDDED_DRAFTER, EMBEDDED_TARGET
from hsd_cli.vocab.source import read_vocabulary
from hsd_cli.vocab.vocabulary import Vocabulary
from tests.tiny import vocabulary

TARGET = read_vocabulary(EMBEDDED_TARGET)
DRAFTER = read_vocabulary(EMBEDDED_DRAFTER)
PROMPT = "def area(self):\n    return"

code = st.text(st.sampled_from(list("abc_(): \n\t'é你😀\x00")), max_size=40)


def translated(prompt: str = PROMPT) -> TranslatedContext:
    return TranslatedContext(DRAFTER, TARGET, DRAFTER.encode(prompt.encode()))


def spelled(context: TranslatedContext) -> bytes:
    return DRAFTER.text_bytes(context.ids)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Everything that is encoded during the test."""
    seen: list[bytes] = []
    encode = Vocabulary.encode

    def record(vocabulary: Vocabulary, data: bytes) -> list[int]:
        seen.append(data)
        return encode(vocabulary, data)

    monkeypatch.setattr(Vocabulary, "encode", record)
    return seen


@given(st.lists(st.tuples(code, code, st.integers(0, 40)), max_size=6))
def test_both_contexts_spell_the_same_bytes_whatever_was_drafted(steps: list[tuple[str, str, int]]) -> None:
    context, text = translated(), PROMPT.encode()
    for draft, written, right in steps:
        # The target follows the draft for a while, then goes its own way.
        actual = (draft[:right] + written).encode()
        before = list(context.ids)
        drafted = DRAFTER.encode(draft.encode())
        unchanged = context.commit(TARGET.encode(actual), drafted)
        text += actual
        assert spelled(context) == text
        assert context.ids[:unchanged] == (before + drafted)[:unchanged]


@given(st.lists(st.sampled_from(["some", " words", "\n", "    ", "x", "=", " (", "é", "你好", " 12"]), max_size=12))
def test_the_context_is_the_segmentation_of_the_text_up_to_old_word_boundaries(pieces: list[str]) -> None:
    # Token by token or all at once: the drafter reads nearly the same ids, never more than a tokenization per byte.
    context = translated()
    for piece in pieces:
        context.commit(TARGET.encode(piece.encode()), [])
    whole = DRAFTER.encode((PROMPT + "".join(pieces)).encode())
    assert len(context.ids) <= len(whole) + len(pieces)


def test_a_word_that_arrives_in_parts_ends_up_as_the_drafter_would_spell_it() -> None:
    context = translated("x =")
    for part in [b" re", b"tu", b"rn"]:
        context.commit(TARGET.encode(part), [])
    assert context.ids == DRAFTER.encode(b"x = return")


def test_confirmed_drafts_keep_their_ids_and_their_place_in_the_cache() -> None:
    context = translated("x")
    before = len(context.ids)
    # An unusual spelling of " self": what the drafter wrote stays if the target wrote the same bytes.
    drafted = [*DRAFTER.encode(b" s"), *DRAFTER.encode(b"elf")]
    unchanged = context.commit(TARGET.encode(b" self"), drafted)
    assert unchanged == before + len(drafted)
    assert context.ids[before:] == drafted


def test_only_the_unfinished_word_is_encoded_again(encoded: list[bytes]) -> None:
    context = translated("word " * 1000)
    tokens = TARGET.encode(b" and more")
    encoded.clear()
    for _ in range(20):
        context.commit(tokens, [])
    assert max(map(len, encoded)) <= len(b" more and more")


def test_special_tokens_of_either_side_spell_nothing() -> None:
    context = translated("x")
    before = list(context.ids)
    end_of_text, drafted_end = TARGET.eos_ids[0], DRAFTER.eos_ids[0]
    assert context.commit([end_of_text], [drafted_end]) == len(before)
    assert context.ids == before


def test_characters_arriving_byte_by_byte_become_whole_again() -> None:
    context = translated("x")
    for byte in "😀é".encode():
        context.commit(TARGET.encode(bytes([byte])), [])
    assert spelled(context) == b"x" + "😀é".encode()


def test_a_drafter_with_byte_tokens_reads_the_parts_of_a_character_at_once() -> None:
    context = translated("x")
    context.commit(TARGET.encode("😀".encode()[:3]), [])
    assert spelled(context) == b"x" + "😀".encode()[:3]


# Knows whole characters and no bytes: an "é" is nothing to it until both of its bytes are there.
CHARACTERS = vocabulary(list("abx é你😀"))


@given(st.text(st.sampled_from("abx é你😀"), max_size=12), st.lists(st.integers(1, 5), max_size=40))
def test_a_drafter_without_byte_tokens_reads_every_character_once_it_is_whole(text: str, lengths: list[int]) -> None:
    context = TranslatedContext(CHARACTERS, TARGET, CHARACTERS.encode(b"x"))
    data, end = text.encode(), 0
    for length in lengths:
        context.commit(TARGET.encode(data[end : end + length]), [])
        end += length
        assert CHARACTERS.text_bytes(context.ids).decode() == "x" + data[:end].decode(errors="ignore")


def test_a_draft_can_confirm_a_character_that_was_begun_before_it() -> None:
    context = TranslatedContext(CHARACTERS, TARGET, CHARACTERS.encode(b"x"))
    context.commit(TARGET.encode("é".encode()[:1]), [])
    drafted = CHARACTERS.encode("éa".encode())
    assert context.commit(TARGET.encode("é".encode()[1:] + b"b"), drafted) == 2
    assert context.ids == CHARACTERS.encode("xéb".encode())


def test_bytes_that_never_become_a_character_are_not_kept(encoded: list[bytes]) -> None:
    context = TranslatedContext(CHARACTERS, TARGET, CHARACTERS.encode(b"x"))
    for _ in range(100):
        context.commit(TARGET.encode("😀".encode()[:3]), [])
    context.commit(TARGET.encode("é".encode()), [])
    assert CHARACTERS.text_bytes(context.ids) == "xé".encode()
    assert max(map(len, encoded)) < 20


def test_a_mirrored_context_has_the_targets_ids() -> None:
    context = MirroredContext([1, 2], size=10)
    assert context.commit([3, 4, 9], drafted=[3, 4, 5]) == 4
    assert context.commit([12], drafted=[]) == 5  # padding of the target's head that the drafter's lacks
    assert context.ids == [1, 2, 3, 4, 9, 9]
