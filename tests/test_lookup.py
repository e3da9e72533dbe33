"""Drafting from earlier text: the longest earlier match, found without a scan."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hsd_cli.drafting.lookup import LookupDrafter
from hsd_cli.drafting.suffix_index import SuffixIndex

TEXTS = st.lists(st.integers(0, 3), min_size=1, max_size=60)


def longest_match(text: list[int]) -> int:
    """By definition: the longest suffix that also ends before the text does."""
    return max(
        (n for n in range(1, len(text)) if any(text[-n:] == text[end - n : end] for end in range(n, len(text)))),
        default=0,
    )


@given(TEXTS)
def test_the_index_finds_the_longest_suffix_that_occurs_earlier(text: list[int]) -> None:
    index = SuffixIndex()
    for end in range(1, len(text) + 1):
        index.extend(text[end - 1 : end])
        assert index.match == longest_match(text[:end])
        assert index.after < end or index.match == 0
        assert text[index.after - index.match : index.after] == text[end - index.match : end]


@given(TEXTS, st.integers(1, 8))
def test_a_draft_is_what_followed_the_match(text: list[int], lookahead: int) -> None:
    draft = LookupDrafter(torch.device("cpu")).draft(text, lookahead)
    if longest_match(text) < 2:
        assert len(draft) == 0
        return
    continued = text + draft.tokens.tolist()
    assert len(draft) == lookahead
    # Every drafted token extends the match: the suffix from the match's beginning on occurs one period earlier.
    assert longest_match(continued) >= longest_match(text) + lookahead


def test_a_repeating_text_is_continued_with_its_period() -> None:
    draft = LookupDrafter(torch.device("cpu")).draft([9, 1, 2, 3, 1, 2, 3], 7)
    assert draft.tokens.tolist() == [1, 2, 3, 1, 2, 3, 1]


def test_only_new_tokens_are_read() -> None:
    text, drafter = [1, 2, 3, 4, 1], LookupDrafter(torch.device("cpu"))
    assert len(drafter.draft(text, 2)) == 0
    text += [2]
    assert drafter.draft(text, 2).tokens.tolist() == [3, 4]
    assert drafter.draft(text, 2).tokens.tolist() == [3, 4]


def test_the_index_stays_linear_in_the_text() -> None:
    index = SuffixIndex()
    index.extend([token % 7 * token % 11 for token in range(20_000)])
    assert len(index._next) <= 2 * 20_000  # the classical bound on states
    assert sum(map(len, index._next)) <= 3 * 20_000  # and on transitions
