"""The keys and values of several texts side by side, so that one attention serves all of them.

A text that gets longer than most leaves the others, for whom there would have to be as much room as for it.
"""

from __future__ import annotations

import sys
from itertools import chain
from typing import Any
from weakref import ref

import torch
from transformers.cache_utils import Cache

from hsd_cli.runtime.cache import RollbackCache, RollbackLayer, first_visible
from hsd_cli.runtime.dense import DenseDecoder

LONGEST = 4096  # positions of a text that lies beside others

Memory = tuple[torch.Tensor, torch.Tensor]  # a layer's keys and values, ``[rows, kv_heads, positions + 1, head_dim]``


class SharedMemory:
    """A row for each text; rows and positions are doubled as they are needed, and then ``layers`` are others.

    There are numbers everywhere in it. The position behind the last is no text's: there goes what nobody reads.
    """

    def __init__(self, decoder: DenseDecoder, longest: int = LONGEST) -> None:
        self._decoder = decoder
        self._longest = longest
        self.windows = decoder.windows
        self._seats: list[ref[Seat] | None] = []  # by row
        self.layers: list[Memory] = [decoder.no_memory()] * decoder.depth
        self.rows = self.positions = 0

    def seat(self, positions: int) -> Seat:
        """A free row, with room for a text of so many positions."""
        free = (row for row, seat in enumerate(self._seats) if seat is None or seat() is None)
        seat = Seat(self, next(free, len(self._seats)))
        self._seats[seat.row : seat.row + 1] = [ref(seat)]
        for part in chain.from_iterable(self.layers):
            part[seat.row : seat.row + 1] = 0  # the last text's end may have been that its numbers were none
        seat.reserve(positions)
        return seat

    def reserve(self, positions: int) -> bool:
        """Makes room for that many in each row. False if a text of so many has to be apart."""
        if positions > self._longest:
            return False
        if positions > self.positions or len(self._seats) > self.rows:
            rows = 1 << (len(self._seats) - 1).bit_length()
            if positions > self.positions:
                positions = min(self._longest, max(positions, 2 * self.positions))
            self._resize(rows, max(positions, self.positions))
        return True

    def trim(self) -> None:
        """Frees the rows behind those of texts."""
        while self._seats and (self._seats[-1] is None or self._seats[-1]() is None):
            del self._seats[-1]
        self._resize(len(self._seats), self.positions)

    def _resize(self, rows: int, positions: int) -> None:
        """Layer by layer, so that little is there twice."""
        for number, (keys, values) in enumerate(self.layers):
            self.layers[number] = _resized(keys, rows, positions), _resized(values, rows, positions)
        self.rows, self.positions = rows, positions

    def without_others(self) -> SharedMemory:
        """An empty one, for a single text of any length."""
        return SharedMemory(self._decoder, longest=sys.maxsize)

    def take_over(self, seat: Seat) -> None:
        """Has what another memory had of a text, which is the only one in here."""
        before, row = seat.memory, seat.row
        self.layers = [(keys[row : row + 1].clone(), values[row : row + 1].clone()) for keys, values in before.layers]
        self.rows, self.positions = 1, before.positions
        self._seats, before._seats[row] = [ref(seat)], None
        seat.memory, seat.row = self, 0


def _resized(part: torch.Tensor, rows: int, positions: int) -> torch.Tensor:
    """Where there was no memory for the next layer, this one may have its size already."""
    new = part.new_zeros(rows, part.shape[1], positions + 1, part.shape[3])
    common = min(rows, len(part)), min(positions + 1, part.shape[2])
    new[: common[0], :, : common[1]] = part[: common[0], :, : common[1]]
    return new


class Seat:
    """A text's row in ``memory``."""

    def __init__(self, memory: SharedMemory, row: int) -> None:
        self.memory, self.row = memory, row

    def reserve(self, positions: int) -> None:
        """Makes room, among the others or apart from them."""
        if not self.memory.reserve(positions):
            self.memory.without_others().take_over(self)
            self.memory.reserve(positions)


class SeatLayer(RollbackLayer):
    """One layer's part of a seat."""

    def __init__(self, seat: Seat, number: int) -> None:
        super().__init__(0, seat.memory.windows[number])
        self._seat, self._number = seat, number

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start, self.length = self.length, self.length + key_states.shape[2]
        self._seat.reserve(self.length)
        keys, values = (part[self._seat.row, None, :, : self.length] for part in self._seat.memory.layers[self._number])
        keys[:, :, start:] = key_states
        values[:, :, start:] = value_states
        first = first_visible(start, self.window)
        return keys[:, :, first:], values[:, :, first:]


class SeatCache(RollbackCache):
    """A cache with a seat in ``memory``, which is free again when the cache is gone."""

    def __init__(self, memory: SharedMemory, capacity: int) -> None:
        self.seat = memory.seat(capacity)
        Cache.__init__(self, layers=[SeatLayer(self.seat, number) for number in range(len(memory.layers))])
