"""Which tokens of two vocabularies mean the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from hsd_cli.vocab.vocabulary import Vocabulary


@dataclass(frozen=True)
class Overlap:
    """The tokens of a drafter and a target that spell the same bytes or, for end of text, have the same role.

    ``pairs`` has one (drafter id, target id) for every shared drafter id. Several drafter ids may share a target id:
    their probabilities add up.
    ``representative`` has, for every shared target id, the one drafter id that stands for it in the drafter's context.
    """

    pairs: list[tuple[int, int]]
    representative: dict[int, int]


@lru_cache(maxsize=4)  # one text follows another with the same pair
def overlap(drafter: Vocabulary, target: Vocabulary) -> Overlap:
    """Tokens with equal bytes; special tokens never match, save end of text, which matches by role."""
    pairs: list[tuple[int, int]] = []
    representative: dict[int, int] = {}
    target_ids = _ordinary_ids(target)
    for spelled, candidates in _ordinary_ids(drafter).items():
        counterparts = target_ids.get(spelled)
        if counterparts:
            target_id = _canonical(target, spelled, counterparts)
            pairs += [(candidate, target_id) for candidate in candidates]
            representative |= dict.fromkeys(counterparts, _canonical(drafter, spelled, candidates))
    if target.eos_ids and drafter.eos_ids:
        pairs += [(eos, target.eos_ids[0]) for eos in drafter.eos_ids]
        representative |= dict.fromkeys(target.eos_ids, drafter.eos_ids[0])
    return Overlap(pairs, representative)


def _ordinary_ids(vocabulary: Vocabulary) -> dict[bytes, list[int]]:
    """Ids by bytes, apart from end of text, which some tokenizers write out like any other token."""
    table = dict(vocabulary.ids_by_bytes)
    for spelled in {vocabulary.token_bytes[eos] for eos in vocabulary.eos_ids}:
        if spelled:
            table[spelled] = [index for index in table[spelled] if index not in vocabulary.eos_ids]
    return {spelled: ids for spelled, ids in table.items() if ids}


def _canonical(vocabulary: Vocabulary, spelled: bytes, ids: list[int]) -> int:
    """Among ids with the same bytes, the one that the tokenizer itself uses for them, if any."""
    if len(ids) == 1:
        return ids[0]
    match vocabulary.encode(spelled):
        case [index] if index in ids:
            return index
    return ids[0]
