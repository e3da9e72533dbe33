"""Recurrent layers (Mamba, linear attention, short convolutions): rolled back by reading again from a snapshot.

Their state is what all tokens so far have made of it; no token can be taken out of it. So copies of it are kept from
positions not far back, and what stays of the text behind such a position is read again, together with what follows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from hsd_cli.runtime.cache import RollbackCache

STRIDE = 8  # tokens between snapshots, at least
SNAPSHOTS = 4  # each as large as the state
CHUNK = 2048  # tokens that are read again at a time
AT_ONCE = 16  # tokens: more than that are read again in a pass of their own, so that a snapshot can follow


@dataclass(frozen=True)
class Snapshot:
    """All recurrent states after ``position`` tokens, in the cache's order."""

    position: int
    states: list[torch.Tensor]


class Replay:
    """Keeps the text that a cache has read, and the snapshots that rolling back needs.

    ``position`` is the number of tokens that the cache holds; those of the text behind it are due to be read again.
    """

    def __init__(self, cache: RollbackCache, device: torch.device) -> None:
        self._cache = cache
        self._text = torch.empty(0, dtype=torch.int64, device=device)
        self._snapshots: deque[Snapshot] = deque(maxlen=SNAPSHOTS)
        self.position = 0
        self._is_whole = True  # false in a pass, and after one that failed: some layers have read what others have not
        self.one_by_one = False  # whether the model can read several tokens only at a text's beginning

    def passes(self, ids: torch.Tensor) -> Iterator[torch.Tensor]:
        """What has to be read, pass by pass, for the cache to hold ``ids`` too; the last one ends with them."""
        due = self._text[self.position :]
        self._text = torch.cat([self._text, ids])
        parts = [torch.cat([due, ids])] if len(due) <= AT_ONCE else [*due.split(CHUNK), ids]
        for part in parts:
            for piece in part.split(1) if self.one_by_one and self.position else [part]:
                if self.position - (self._snapshots[-1].position if self._snapshots else 0) >= STRIDE:
                    self._snapshots.append(
                        Snapshot(self.position, [state.clone() for state in self._cache.recurrent_states])
                    )
                self._is_whole = False
                yield piece
                self._is_whole = True
                self.position += len(piece)

    @torch.inference_mode()
    def rollback(self, length: int) -> None:
        """Forgets every token from ``length`` on."""
        self._text = self._text[:length]
        if length >= self.position and self._is_whole:
            return
        self._is_whole = True
        while self._snapshots and self._snapshots[-1].position > length:
            self._snapshots.pop()
        self.position = self._snapshots[-1].position if self._snapshots else 0
        self._cache.rollback(self.position)
        if self._snapshots:
            for state, copy in zip(self._cache.recurrent_states, self._snapshots[-1].states, strict=True):
                state.copy_(copy)
        else:
            for layer in self._cache.recurrent_layers:
                layer.has_previous_state = dict.fromkeys(layer.has_previous_state, False)
