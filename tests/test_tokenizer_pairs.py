"""Every family of tokenizers drafts for every other: the same text as plain decoding, and contexts that agree."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers

from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.decoding.verification import Coupled
from hsd_cli.drafting.context import LONGEST_WORD, WORD_SEARCH, TranslatedContext
from hsd_cli.drafting.registry import ALGORITHMS, first_difference
from hsd_cli.errors import UsageError
from hsd_cli.vocab.overlap import overlap
from hsd_cli.vocab.segmentation import segment
from hsd_cli.vocab.vocabulary import Vocabulary
from tests.breadth import breadth
from tests.tokenizer_families import EVERY_FAMILY, LETTERS, SPACE_MARK, describe, vocabulary, vocabulary_of
from tests.tokenizer_pairs import PAGE, SHOWN, row, write

PAIRS = [(target, drafter) for target in EVERY_FAMILY for drafter in EVERY_FAMILY]
FAMILIES = list(EVERY_FAMILY)
# Each family as target, as drafter, and with itself.
COVERING = [*zip(FAMILIES, FAMILIES[5:] + FAMILIES[:5], strict=True), *zip(FAMILIES, FAMILIES, strict=True)]
MARK = SPACE_MARK.encode()
REMEDY = "run python -m tests.tokenizer_pairs"
EXAMPLES = 2  # of texts for each of the many pairs
SCRIPT = 12  # tokens of the target's
SETTINGS = {"greedy": SamplingSettings(), "sampled": SamplingSettings(temperature=1.0)}
# Families whose tokens spell whatever bytes they are given, as they are.
ANY_BYTES = [
    family for family in EVERY_FAMILY if "byte" in family.lower() or "SentencePiece" in family or "metaspace" in family
]
REWRITING = ["in NFC", "in NFKC", "in lower case", "without accents"]
EXACT = [family for family in ANY_BYTES if not any(family.endswith(change) for change in REWRITING)]
REWRITTEN = [family for family in ANY_BYTES if family not in EXACT]

FRAGMENTS = [
    " the cat sat on the mat",
    "the",
    " dog ran",
    "def main():\n    if True:\n\t\treturn 'the end'\n",
    " 123 456,789 １２３",
    "👩‍💻👨‍👩‍👧‍👦 🏳️‍🌈",
    "e\u0301a\u0308\u0323 Å Å ﬁ x²",
    "naïve Café ÉTÉ ẞ İ",
    " שלום עולם \u202eabc\u202c مرحبا",
    "日本語 日本、です。한국어",
    "\x00\x01\x1b[31m\x7f\x85\ufeff",
    "\r\n\n\r \n\n\n  \u00a0\u3000\u2028",
    "\t\t        x",
    "<s></s><|endoftext|><|im_start|>user<0x41>[UNK][SEP]",
    "a <left> b <right> c <both>  <tool> the cat</s>|>cat dog hotdog\n\n",
    "abcdefghijklmnopqrstuvwxyz" * 3,
    "▁ ▁the Ġthe ##at ât",
]
TEXT = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=6)), min_size=2, max_size=4).map("".join)
NOISE = st.binary(max_size=3)
LETTERED = st.lists(st.text(LETTERS, min_size=1, max_size=14).map(" {}".format), min_size=1, max_size=6).map("".join)


@cache
def spells_nothing_shared(target: str, drafter: str) -> dict[str, bool]:
    """For each algorithm whether this pair leaves it nothing to draft."""
    to, of = vocabulary_of(target), vocabulary_of(drafter)
    unshared = not overlap(of, to).pairs
    return {"tli": unshared, "union": unshared, "slrs": not any(segment(of, to))}


def some_script(target: str, chance: random.Random) -> list[int]:
    """Ids that a target might write: any text with bytes between that are no text, at times not as it would cut it."""
    vocabulary = vocabulary_of(target)
    data = "".join(chance.sample(FRAGMENTS, 3)).encode()
    start = chance.randrange(len(data) // 2)
    place = start + chance.randrange(20)
    ids = vocabulary.encode(data[start:place] + chance.randbytes(chance.randrange(3)) + data[place:])
    return [*vocabulary.encode(b" the"), *ids, *vocabulary.encode(b" cat")][:SCRIPT]


@pytest.mark.parametrize(("target", "drafter"), breadth(PAIRS, quick=COVERING))
def test_every_algorithm_writes_what_plain_decoding_writes(target: str, drafter: str) -> None:
    chance = random.Random(f"{target} {drafter}")
    script, seed = some_script(target, chance), chance.randrange(100)
    plain = {
        name: write((target, drafter), "ar", script, Coupled(seed if name == "sampled" else None), settings)[0]
        for name, settings in SETTINGS.items()
    }
    for algorithm in ALGORITHMS:
        if algorithm == "sd" and first_difference(vocabulary_of(target), vocabulary_of(drafter)):
            continue
        name = chance.choice(list(SETTINGS))
        rule, lookahead = Coupled(seed if name == "sampled" else None), chance.randint(1, 5)
        if spells_nothing_shared(target, drafter).get(algorithm):
            with pytest.raises(UsageError):
                write((target, drafter), algorithm, script, rule, SETTINGS[name])
        else:
            written, _ = write((target, drafter), algorithm, script, rule, SETTINGS[name], lookahead=lookahead)
            assert written == plain[name], algorithm


@pytest.mark.parametrize("algorithm", SHOWN)
def test_the_table_of_pairs_is_up_to_date(algorithm: str) -> None:
    table = PAGE.read_text().partition(f"## {algorithm}\n")[2].partition("##")[0].splitlines()[3:]
    names = [line.split(" | ")[0].split(" ", 2)[2] for line in table if line]
    assert names == list(EVERY_FAMILY), REMEDY
    for target in list(EVERY_FAMILY)[::9]:  # all of them would take a minute
        assert row(algorithm, target) in table, REMEDY


@contextmanager
def counting_bytes() -> Iterator[list[int]]:
    """The lengths of all that is encoded meanwhile."""
    lengths: list[int] = []
    encode = Vocabulary.encode

    def count(vocabulary: Vocabulary, data: bytes) -> list[int]:
        lengths.append(len(data))
        return encode(vocabulary, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Vocabulary, "encode", count)
        yield lengths


@cache
def furthest(drafter: Vocabulary) -> tuple[int, int]:
    """How far back its text may be encoded anew, in tokens and in bytes."""
    tokens = LONGEST_WORD if writes_words_apart(drafter) else WORD_SEARCH
    return tokens, max(LONGEST_WORD, WORD_SEARCH * max(map(len, filter(None, drafter.token_bytes))))


def follow(target: Vocabulary, drafter: Vocabulary, ids: list[int], steps: list[int]) -> TranslatedContext:
    """A context that reads ``ids`` in commits of ``steps`` tokens each, over and over, never going back far."""
    most_tokens, most_bytes = furthest(drafter)
    context = TranslatedContext(drafter, target, drafter.encode(b" the"))
    read, turn = 0, 0
    with counting_bytes() as lengths:
        while read < len(ids):
            count = steps[turn % len(steps)]
            new = ids[read : read + count]
            before = list(context.ids)
            lengths.clear()
            unchanged = context.commit(new, [])
            assert context.ids[:unchanged] == before[:unchanged]
            assert len(before) - unchanged <= most_tokens
            # The end of the text is read twice where its last word has to be remembered.
            assert sum(lengths) <= 2 * (len(target.text_bytes(new)) + 3 + most_bytes)
            read, turn = read + count, turn + 1
    assert max(context.ids, default=0) < len(drafter)
    return context


def writes_words_apart(vocabulary: Vocabulary) -> bool:
    return vocabulary.text_bytes(vocabulary.encode(b"ab")) != b"ab"


STEPS = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def target_ids(target: Vocabulary, text: str, noise: bytes) -> list[int]:
    middle = len(text) // 2
    return target.encode(text[:middle].encode() + noise + text[middle:].encode())


@pytest.mark.parametrize("drafter", breadth(EXACT, quick=EXACT[::4]))
@pytest.mark.parametrize("target", EVERY_FAMILY)
@given(text=TEXT, noise=NOISE, steps=STEPS)
@settings(max_examples=EXAMPLES)
def test_a_drafter_that_can_spell_anything_reads_the_targets_bytes(
    target: str, drafter: str, text: str, noise: bytes, steps: list[int]
) -> None:
    to, of = vocabulary_of(target), vocabulary_of(drafter)
    ids = target_ids(to, text, noise)
    read, written = of.text_bytes(follow(to, of, ids, steps).ids), b" the" + to.text_bytes(ids)
    # SentencePiece takes its own mark for a space.
    assert read.replace(MARK, b" ") == written.replace(MARK, b" ")


@pytest.mark.parametrize("drafter", breadth(REWRITTEN, quick=REWRITTEN[::4]))
@pytest.mark.parametrize("target", EVERY_FAMILY)
@given(text=TEXT, noise=NOISE, steps=STEPS)
@settings(max_examples=EXAMPLES)
def test_a_drafter_that_rewrites_text_reads_it_rewritten(
    target: str, drafter: str, text: str, noise: bytes, steps: list[int]
) -> None:
    to, of = vocabulary_of(target), vocabulary_of(drafter)
    ids = target_ids(to, text, noise)
    context = follow(to, of, ids, steps)
    assert rewritten(of, of.text_bytes(context.ids)) == rewritten(of, b" the" + to.text_bytes(ids))


def rewritten(vocabulary: Vocabulary, data: bytes) -> bytes:
    return vocabulary.text_bytes(vocabulary.encode(data))


@pytest.mark.parametrize("drafter", [family for family in EVERY_FAMILY if family not in ANY_BYTES])
@pytest.mark.parametrize("target", EVERY_FAMILY)
@given(text=LETTERED, steps=STEPS)
@settings(max_examples=EXAMPLES)
def test_a_drafter_of_few_characters_reads_what_it_can_spell(
    target: str, drafter: str, text: str, steps: list[int]
) -> None:
    to, of = vocabulary_of(target), vocabulary_of(drafter)
    ids = to.encode(text.encode())
    context = follow(to, of, ids, steps)
    if drafter != "words":  # which has few of these, and what it reads of a word depends on where a commit ends
        begun = of.text_bytes(of.encode(b" the"))
        assert of.text_bytes(context.ids).split() == (begun + to.text_bytes(ids)).split()


@pytest.mark.parametrize("drafter", [family for family in EVERY_FAMILY if family not in ANY_BYTES])
@pytest.mark.parametrize("target", EVERY_FAMILY)
@given(text=TEXT, noise=NOISE, steps=STEPS)
@settings(max_examples=EXAMPLES)
def test_a_drafter_of_few_characters_bears_any_text(
    target: str, drafter: str, text: str, noise: bytes, steps: list[int]
) -> None:
    to, of = vocabulary_of(target), vocabulary_of(drafter)
    follow(to, of, target_ids(to, text, noise), steps)


LINE = 100_000


@pytest.mark.parametrize("family", breadth(EVERY_FAMILY, quick=["byte-level BPE", "WordPiece"]))
def test_the_work_for_a_long_line_grows_with_its_length_alone(family: str) -> None:
    """A line of 100 kB without a space, and one of words: as target and as drafter, piece by piece."""
    of, to = vocabulary_of(family), vocabulary_of("byte-level BPE")
    for line in (b"x" * LINE, b" the cat" * (LINE // 8)):
        for target, drafter in ((to, of), (of, to)):
            ids = target.encode(line)
            context = TranslatedContext(drafter, target, drafter.encode(b" the"))
            pieces = range(0, len(ids), 500)
            with counting_bytes() as lengths:
                for start in pieces:
                    context.commit(ids[start : start + 500], [])
            _, most_bytes = furthest(drafter)
            assert sum(lengths) <= 3 * (len(target.text_bytes(ids)) + len(pieces) * most_bytes)
            assert len(context.ids) <= 2 * LINE


def test_added_tokens_that_swallow_spaces_leave_them_to_the_text() -> None:
    vocabulary = vocabulary_of("byte-level BPE with added tokens")
    for text in (b"a <left> b", b"a <right> b", b"a  <both>  b"):
        assert vocabulary.text_bytes(vocabulary.encode(text)) == text


@pytest.mark.parametrize("family", ["SentencePiece BPE with added tokens", "byte-level BPE in lower case"])
def test_added_tokens_spell_what_the_library_decodes_after_its_normalizer(family: str) -> None:
    tokenizer = EVERY_FAMILY[family]()
    tokenizer.add_tokens([AddedToken("The END", normalized=True)])
    index = tokenizer.token_to_id("The END")
    both = vocabulary(tokenizer)
    start = both.encode(b"x")
    assert both.text_bytes([*start, index, *start]).decode() == tokenizer.decode([*start, index, *start])
    assert both.encode(both.token_bytes[index] or b"") == [index]


def test_a_normalized_added_token_of_a_unigram_vocabulary_keeps_its_id() -> None:
    tokenizer = EVERY_FAMILY["Unigram in NFKC"]()
    tokenizer.normalizer = normalizers.Lowercase()
    description = describe(tokenizer)
    description["model"]["vocab"][3][0] = "PAD"
    added = {"id": 3, "content": "PAD", "special": False, "normalized": True}
    added |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    both = Vocabulary(description | {"added_tokens": [*description["added_tokens"], added]})
    assert both.encode(b"pad") == [3]
    assert both.token_bytes[3] == b"pad"


@pytest.mark.parametrize("drafter", ["WordPiece", "words"])
def test_a_space_that_comes_before_its_word_is_not_lost(drafter: str) -> None:
    target, own = vocabulary_of("characters"), vocabulary_of(drafter)
    context = TranslatedContext(own, target, own.encode(b" the"))
    for letter in (b" ", b"c", b"a", b"t"):
        context.commit(target.encode(letter), [])
    assert context.ids == own.encode(b" the cat")


def test_a_word_that_arrives_in_parts_is_one_word_to_a_drafter_that_marks_its_end() -> None:
    target, own = vocabulary_of("characters"), vocabulary_of("BPE with a suffix")
    context = TranslatedContext(own, target, own.encode(b"the"))
    for letter in (b" ", b"c", b"a", b"t"):
        context.commit(target.encode(letter), [])
    assert context.ids == own.encode(b"the cat")


def test_a_long_word_gets_no_space_in_its_middle() -> None:
    target, own = vocabulary_of("characters"), vocabulary_of("WordPiece")
    context = TranslatedContext(own, target, own.encode(b" the"))
    word = b" " + b"qxz" * 10
    for letter in word:
        context.commit(target.encode(bytes([letter])), [])
    assert own.text_bytes(context.ids) == b" the" + word
