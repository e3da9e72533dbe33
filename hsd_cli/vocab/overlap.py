"""Which tokens of two vocabularies mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from hsd_cli.vocab.vocabulary import Vocabulary


@dataclass(frozen=True)
class Overlap:
    """The tokens of a drafter and a target that spell the same bytes or, for end of text, have the same role.

    ``pairs`` has one (drafter id, target id) for every shared drafter id. Several drafter ids may share a target id:
    their probabilities add up.
    ``representative`` has every shared target id, each with a drafter id that means the same.
    """

    pairs: list[tuple[int, int]]
    representative: dict[int, int]


@lru_cache(maxsize=4)  # one text follows another with the same pair
def overlap(drafter: Vocabulary, target: Vocabulary) -> Overlap:
    """Tokens with equal bytes; special tokens never match, save end of text, which matches by role."""
    target_ids, drafter_ids = _canonical_ids(target, drafter), _canonical_ids(drafter, target)
    pairs = _counterparts(drafter, target_ids)
    representative = dict(_counterparts(target, drafter_ids))
    if target.eos_ids and drafter.eos_ids:
        pairs += [(eos, target.eos_ids[0]) for eos in drafter.eos_ids]
        representative |= dict.fromkeys(target.eos_ids, drafter.eos_ids[0])
    return Overlap(pairs, representative)


def _counterparts(vocabulary: Vocabulary, ids: Mapping[bytes | None, int]) -> list[tuple[int, int]]:
    """The tokens of ``vocabulary`` that are spelled as one of ``ids``; (id, that one)."""
    found = enumerate(map(ids.get, vocabulary.token_bytes))
    return [(index, other) for index, other in found if other is not None and index not in vocabulary.eos_ids]


def _canonical_ids(vocabulary: Vocabulary, other: Vocabulary) -> dict[bytes | None, int]:
    """One id for every byte string, apart from end of text, which some tokenizers write out like any other token.

    Of several ids, if ``other`` has such a token, the one that the tokenizer itself uses, if any.
    """
    ids: dict[bytes | None, int] = dict(vocabulary.first_ids)
    ends = {spelled for eos in vocabulary.eos_ids if (spelled := vocabulary.token_bytes[eos])}
    for spelled in ends | (vocabulary.repeated_ids.keys() & other.first_ids.keys()):
        same = vocabulary.repeated_ids.get(spelled, [ids[spelled]])
        match [index for index in same if index not in vocabulary.eos_ids]:
            case []:
                del ids[spelled]
            case candidates:
                ids[spelled] = _canonical(vocabulary, spelled, candidates)
    return ids


def _canonical(vocabulary: Vocabulary, spelled: bytes, ids: list[int]) -> int:
    """Among ids with the same bytes, the one that the tokenizer itself uses for them, if any."""
    if len(ids) == 1:
        return ids[0]
    match vocabulary.encode(spelled):
        case [index] if index in ids:
            return index
    return ids[0]
