"""What two vocabularies share, what each lacks, and which algorithms suit the pair."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from unicodedata import category

from hsd_cli.vocab.overlap import overlap
from hsd_cli.vocab.vocabulary import Vocabulary

# From this share of the target's text on, drafting in shared tokens alone loses little.
MOSTLY_SHARED = 0.5

CJK = re.compile(
    "[\u2e80-\u2fdf\u3005-\u30ff\u3100-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
LATIN = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]")
TOKEN_CLASSES = (
    "whitespace",
    "digits",
    "punctuation and symbols",
    "Latin words",
    "CJK",
    "other scripts",
    "pieces of characters",
    "special tokens",
)


@dataclass(frozen=True)
class Verdict:
    """The algorithms that fit a pair, the best one first, and the reason in one line."""

    algorithms: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Side:
    """One vocabulary as seen from the other. ``missing`` has the ids that the other one lacks, by class.

    ``shared_ends``: of the places where a token of the text ends, the fraction where one of the other's does, too.
    """

    family: str
    tokens: int
    shared: list[int]
    share_of_text: float
    bytes_per_token: float
    shared_ends: float
    missing: dict[str, list[int]]

    @property
    def shared_fraction(self) -> float:
        """The shared tokens as a fraction of this side's tokens."""
        return len(self.shared) / max(self.tokens, 1)


@dataclass(frozen=True)
class Report:
    """Both sides of a pair; ``a`` is the target and ``b`` the drafter.

    ``same``: they have the same tokens. ``same_cut``: their tokens of the text end at the same places.
    """

    a: Side
    b: Side
    same: bool
    same_cut: bool
    verdict: Verdict


@cache
def sample_text() -> str:
    """A few kilobytes of prose, code, numbers and scripts, where no better sample is at hand."""
    return Path(__file__).with_name("sample.txt").read_text(encoding="utf-8")


def share_of_text(target: Vocabulary, drafter: Vocabulary, text: str) -> float:
    """The fraction of the target's tokens of ``text`` that the drafter has too."""
    return _shared_fraction(target, drafter, target.encode(text.encode()))


def compare(target: Vocabulary, drafter: Vocabulary, text: str) -> Report:
    """Everything there is to say about a pair before its weights are downloaded."""
    same = target.same_tokens(drafter)
    shared = overlap(drafter, target)
    a = _side(target, drafter, _ids(target) if same else sorted(shared.representative), text)
    b = _side(drafter, target, _ids(drafter) if same else sorted(index for index, _ in shared.pairs), text)
    same_cut = a.shared_ends == b.shared_ends == 1
    return Report(a, b, same, same_cut, _verdict(same, same_cut, a.share_of_text, bool(shared.pairs)))


def token_class(spelled: bytes | None) -> str:
    """The entry of ``TOKEN_CLASSES`` that best describes a token; a word counts by its script."""
    if not spelled:
        return "special tokens"
    if spelled.strip().isalpha():  # in bytes these are ASCII's letters: most tokens need no other look
        return "Latin words"
    try:
        text = spelled.decode().strip()
    except UnicodeDecodeError:
        return "pieces of characters"
    if not text:
        return "whitespace"
    if not text.isascii() and CJK.search(text):
        return "CJK"
    if LATIN.search(text):
        return "Latin words"
    if any(character.isalpha() or category(character).startswith("M") for character in text):
        return "other scripts"
    return "digits" if any(map(str.isnumeric, text)) else "punctuation and symbols"


def _side(vocabulary: Vocabulary, other: Vocabulary, shared: list[int], text: str) -> Side:
    ids = vocabulary.encode(text.encode())
    everything = _ids(vocabulary)
    ends, others = _ends(vocabulary, ids), _ends(other, other.encode(text.encode()))
    return Side(
        family=vocabulary.family,
        tokens=len(everything),
        shared=shared,
        share_of_text=_shared_fraction(vocabulary, other, ids),
        bytes_per_token=len(vocabulary.text_bytes(ids)) / max(len(ids), 1),
        shared_ends=len(ends & others) / max(len(ends), 1),
        missing=_by_class(vocabulary, _difference(everything, shared)),
    )


def _ends(vocabulary: Vocabulary, ids: Iterable[int]) -> set[int]:
    """Where the tokens end, in bytes of what they spell together."""
    return set(accumulate(len(vocabulary.token_bytes[index] or b"") for index in ids))


def _ids(vocabulary: Vocabulary) -> list[int]:
    """The ids that are tokens: neither holes nor the mark of unknown text."""
    return [index for index, spelled in enumerate(vocabulary.token_bytes) if spelled or vocabulary.name(index)]


def _difference(ids: Iterable[int], excluded: Collection[int]) -> list[int]:
    excluded = set(excluded)
    return [index for index in ids if index not in excluded]


def _shared_fraction(vocabulary: Vocabulary, other: Vocabulary, ids: Sequence[int]) -> float:
    shared = sum(vocabulary.token_bytes[index] in other.first_ids for index in ids)
    return shared / max(len(ids), 1)


def _by_class(vocabulary: Vocabulary, ids: Iterable[int]) -> dict[str, list[int]]:
    classes: dict[str, list[int]] = {name: [] for name in TOKEN_CLASSES}
    for index in ids:
        classes[token_class(vocabulary.token_bytes[index])].append(index)
    return {name: members for name, members in classes.items() if members}


def _verdict(same: bool, same_cut: bool, share: float, any_shared: bool) -> Verdict:
    if same:
        reason = "same vocabulary: sd, because every draft token is a target token"
        other = (
            "; but they cut text at other places, so that the drafter reads prompts in tokens that are unusual for it"
        )
        return Verdict(("sd",), reason if same_cut else reason + other)
    percent = f"{share:.0%} of the text is in tokens that the drafter shares"
    if share >= MOSTLY_SHARED:
        return Verdict(
            ("tli", "slrs", "slem", "union"),
            f"different vocabularies: tli or slrs when sampling, because {percent}; slem for greedy text; "
            "union is the baseline",
        )
    return Verdict(
        ("slem", "slrs", "union") if any_shared else ("slem", "slrs"),
        f"different vocabularies: slem for greedy text, slrs when sampling, which fit any pair, because only {percent}"
        + ("; union is the baseline" if any_shared else ""),
    )
