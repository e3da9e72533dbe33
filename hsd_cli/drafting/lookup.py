"""Drafts without a drafter: what followed the longest earlier match of the text's end."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.drafting.protocol import Draft
from hsd_cli.drafting.suffix_index import SuffixIndex

SHORTEST_MATCH = 2  # a single token's repetition says little about what follows


class LookupDrafter:
    """Point masses copied from the prompt or from the output, where text repeats: edits, summaries, code."""

    def __init__(self, device: torch.device, shortest: int = SHORTEST_MATCH) -> None:
        self._device = device
        self._shortest = shortest
        self._index = SuffixIndex()
        self._read = 0

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        copied = self._copy(text, lookahead) if self.match(text) >= self._shortest else []
        return Draft(torch.tensor(copied, dtype=torch.int64, device=self._device), algorithm="lookup")

    def match(self, text: Sequence[int]) -> int:
        """Length of the longest suffix of ``text`` that occurs earlier in it."""
        self._index.extend(text[self._read :])
        self._read = len(text)
        return self._index.match

    def _copy(self, text: Sequence[int], count: int) -> list[int]:
        """``count`` tokens from the match on. A match that reaches into the copy repeats with its own period."""
        period = len(text) - self._index.after
        return [text[self._index.after + place % period] for place in range(count)]
