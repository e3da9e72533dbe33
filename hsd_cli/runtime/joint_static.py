"""A few tokens of each of several texts as the same work each time, which can be recorded and replayed.

Maps and norms are of the tokens that there are. For attention they stand in a grid, a row for each text, so that it is
one launch for all texts; what a row does not fill is masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import is_not

import torch
import torch.nn.functional as F

from hsd_cli.runtime.compiling import Compilation
from hsd_cli.runtime.dense import DenseDecoder, Reading
from hsd_cli.runtime.device import upload
from hsd_cli.runtime.graphs import Graphs
from hsd_cli.runtime.seats import Memory, SeatCache, SharedMemory
from hsd_cli.runtime.static import SIZES, bucket_for


class JointReader:
    """Reads with ``decoder``, or with what ``compilation`` makes of it, for texts that have seats in ``memory``."""

    def __init__(
        self, decoder: DenseDecoder, memory: SharedMemory, graphs: Graphs, compilation: Compilation | None = None
    ) -> None:
        self._eager = self._decoder = decoder
        self._graphs = graphs
        self.memory = memory
        self._compilation = compilation or Compilation("never")
        self._made = 0
        self._recorded_with: tuple[DenseDecoder, torch.Tensor] | None = None
        self._angles = decoder.angles(0)

    def takes(self, reading: Reading) -> bool:
        """Whether it is a few tokens, of a text beside the others; then there is room for them."""
        if len(reading.ids) > SIZES[-1] or not isinstance(reading.cache, SeatCache):
            return False
        reading.cache.seat.reserve(reading.end)
        return reading.cache.seat.memory is self.memory

    def logits(self, readings: Sequence[Reading]) -> list[torch.Tensor] | None:
        """As ``DenseDecoder.logits`` does. ``None`` if nothing can be recorded."""
        self._notice_changes()
        counts = [len(each.ids) for each in readings]
        rows = [each.cache.seat.row for each in readings if isinstance(each.cache, SeatCache)]
        size = next(size for size in SIZES if size >= max(counts))
        texts = min(1 << max(rows).bit_length(), self.memory.rows)
        tokens = bucket_of_tokens(sum(counts))
        bucket = min(bucket_for(max(each.end for each in readings)), self.memory.positions)
        where = [
            (row, each.start + place, row * size + place)
            for row, each in zip(rows, readings, strict=True)
            for place in range(len(each.ids))
        ]
        nowhere = (0, self.memory.positions, texts * size)
        where += [nowhere] * (tokens - len(where))
        ids = F.pad(torch.cat([each.ids for each in readings]), (0, tokens - sum(counts)))
        places = upload([number for numbers in zip(*where, strict=True) for number in numbers], ids.device)
        key = tokens, texts, size, bucket
        results = self._graphs.run(key, partial(self._pass, texts, size, bucket), ids, places.view(3, -1))
        if results is None:
            return None
        for each in readings:
            each.cache.rollback(each.end)  # forwards, here: the device knows no lengths
        parts = results[0][: sum(counts)].split(counts)
        return [part[-each.keep :] for part, each in zip(parts, readings, strict=True)]

    def _notice_changes(self) -> None:
        """The memory may have grown, and the decoder may be compiled now."""
        self._made += 1
        self._decoder = self._compilation.decoder(self._eager, self._graphs, self._made)
        now = self._decoder, self.memory.layers[0][0]
        if self._recorded_with is None or any(map(is_not, now, self._recorded_with)):
            self._graphs.forget()
            self._recorded_with = now
            self._angles = self._decoder.angles(self.memory.positions + 1)

    def _pass(self, texts: int, size: int, bucket: int, ids: torch.Tensor, where: torch.Tensor) -> tuple[torch.Tensor]:
        """Logits after all ``ids`` (int64 ``[tokens]``); ``where`` are their rows, their positions in the texts, and
        their cells of the grid, int64 ``[3, tokens]``."""
        rows, positions, cells = where
        cos, sin = (table.index_select(0, positions) for table in self._angles)
        grid = Grid(self._decoder, self.memory.layers, texts, size, bucket, rows, positions, cells)
        return (self._decoder.predict(self._decoder.states(ids, (cos, sin), grid.attend)),)


class Grid:
    """``texts`` rows of ``size`` cells, and one more cell, in which nobody looks."""

    def __init__(
        self,
        decoder: DenseDecoder,
        layers: Sequence[Memory],
        texts: int,
        size: int,
        bucket: int,
        rows: torch.Tensor,
        positions: torch.Tensor,
        cells: torch.Tensor,
    ) -> None:
        self._decoder, self._layers = decoder, layers
        self._texts, self._size, self._bucket = texts, size, bucket
        self._rows, self._positions, self._cells = rows, positions, cells
        # A cell that is empty sees the first position: it has to see something.
        seen = torch.arange(bucket, device=cells.device) <= self._spread(positions)[..., None]
        self._mask = decoder.row_mask(seen)[:, None]
        self._inside = cells.clamp(max=texts * size - 1)

    def _spread(self, values: torch.Tensor) -> torch.Tensor:
        """Of each token its value, ``[tokens, ...]``, in its cell: ``[texts, size, ...]``."""
        cells = values.new_zeros(self._texts * self._size + 1, *values.shape[1:]).index_copy_(0, self._cells, values)
        return cells[:-1].view(self._texts, self._size, *values.shape[1:])

    def attend(self, number: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """``Attend`` for the tokens in the grid."""
        keys, values = self._layers[number]
        keys.transpose(1, 2)[self._rows, self._positions] = key
        values.transpose(1, 2)[self._rows, self._positions] = value
        keys, values = (part[: self._texts, :, : self._bucket] for part in (keys, values))
        return self._decoder.attend_as_rows(self._spread(query), keys, values, self._mask).index_select(0, self._inside)


def bucket_of_tokens(count: int) -> int:
    """The smallest of a few numbers of tokens that is not below ``count``: there are four to each doubling."""
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step
