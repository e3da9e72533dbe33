"""Which tokens of two vocabularies mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def overlap(drafter: Vocabulary, target: Vocabulary) -> Overlap:
    """Tokens with equal bytes; special tokens never match, save end of text, which matches by role."""
    pairs: list[tuple[int, int]] = []
    representative: dict[int, int] = {}
    target_ids = target.ids_by_bytes
    for spelled, all_candidates in drafter.ids_by_bytes.items():
        if spelled not in target_ids:
            continue
        candidates = _without(all_candidates, drafter.eos_ids)
        counterparts = _without(target_ids[spelled], target.eos_ids)
        if candidates and counterparts:
            target_id = _canonical(target, spelled, counterparts)
            pairs += [(candidate, target_id) for candidate in candidates]
            stand_in = _canonical(drafter, spelled, candidates)
            representative |= dict.fromkeys(counterparts, stand_in)
    if target.eos_ids and drafter.eos_ids:
        pairs += [(eos, target.eos_ids[0]) for eos in drafter.eos_ids]
        representative |= dict.fromkeys(target.eos_ids, drafter.eos_ids[0])
    return Overlap(pairs, representative)


def _without(ids: Sequence[int], excluded: Sequence[int]) -> list[int]:
    return [index for index in ids if index not in excluded]


def _canonical(vocabulary: Vocabulary, spelled: bytes, ids: list[int]) -> int:
    """Among ids with the same bytes, the one that the tokenizer itself uses for them, if any."""
    if len(ids) == 1:
        return ids[0]
    match vocabulary.encode(spelled):
        case [index] if index in ids:
            return index
    return ids[0]
