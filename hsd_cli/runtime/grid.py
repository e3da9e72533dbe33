"""A few tokens of each of several texts at once, with one attention for all of them.

Maps and norms are of the tokens that there are. For attention they stand in a grid, a row for each text; what a row
does not fill is masked. Where launches are dear, that is the same work each time, and is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import is_not

import torch
import torch.nn.functional as F

from hsd_cli.runtime.compiling import Compilation
from hsd_cli.runtime.dense import DenseDecoder, Reading, at
from hsd_cli.runtime.device import upload
from hsd_cli.runtime.graphs import Graphs
from hsd_cli.runtime.seats import Memory, SeatCache, SharedMemory
from hsd_cli.runtime.static import SIZES, bucket_for, seen

MOST_WASTE = 2  # times as many positions as the texts have: reading them is not free where nothing is recorded


@dataclass(frozen=True)
class Shape:
    """``tokens`` in a grid of ``rows`` by ``width``, which see the first ``positions`` of each row's text."""

    tokens: int
    rows: int
    width: int
    positions: int


class GridReader:
    """Reads with ``decoder`` for texts that have seats in ``memory``; with ``graphs`` by recordings, of what
    ``compilation`` makes of it."""

    def __init__(
        self, decoder: DenseDecoder, memory: SharedMemory, graphs: Graphs | None, compilation: Compilation | None = None
    ) -> None:
        self._eager = self._decoder = decoder
        self._graphs = graphs
        self.memory = memory
        self._compilation = compilation or Compilation("never")
        self._made = 0
        self._made_with: tuple[DenseDecoder, torch.Tensor] | None = None
        self._angles = decoder.angles(0)

    def logits(self, readings: Sequence[Reading]) -> list[torch.Tensor]:
        """As ``DenseDecoder.logits`` does: few tokens in a grid, if that is better, the others (prompts) without."""
        few = self._choose(readings)
        found = dict(zip(map(id, few), self._in_grid(few) if few else [], strict=True))
        if others := [each for each in readings if id(each) not in found]:
            found |= zip(map(id, others), self._eager.logits(others), strict=True)
        return [found[id(each)] for each in readings]

    def _choose(self, readings: Sequence[Reading]) -> list[Reading]:
        """Those to be read in a grid; then there is room for them."""
        few = [each for each in readings if self._takes(each)]
        if self._graphs is not None:
            return few
        # One pass over everything is better than two, and each text's own attention than one over mostly nothing.
        spread_out = len(few) * max((each.end for each in few), default=0) > MOST_WASTE * sum(each.end for each in few)
        return [] if len(few) < len(readings) or len(few) == 1 or spread_out else few

    def _takes(self, reading: Reading) -> bool:
        """Whether it is a few tokens, of a text beside the others."""
        if reading.count > SIZES[-1] or not isinstance(reading.cache, SeatCache):
            return False
        reading.cache.seat.reserve(reading.end)
        return reading.cache.seat.memory is self.memory

    def _in_grid(self, readings: Sequence[Reading]) -> list[torch.Tensor]:
        self._notice_changes()
        counts = [each.count for each in readings]
        rows = [each.cache.seat.row for each in readings if isinstance(each.cache, SeatCache)]
        shape = self._shape(readings, rows)
        where = [
            (row, each.start + place, row * shape.width + place)
            for row, each in zip(rows, readings, strict=True)
            for place in range(each.count)
        ]
        padding = shape.tokens - len(where)
        where += [(0, self.memory.positions, shape.rows * shape.width)] * padding  # where nobody looks
        ids = F.pad(torch.cat([each.ids for each in readings]), (0, padding))
        places = upload([number for numbers in zip(*where, strict=True) for number in numbers], ids.device).view(3, -1)
        read = partial(self._pass, shape)
        recorded = None if self._graphs is None else self._graphs.run(shape, read, ids, places)
        (logits,) = recorded or read(ids, places)
        for each in readings:
            each.cache.rollback(each.end)  # forwards, here: what was read knows no lengths
        parts = logits[: sum(counts)].split(counts)
        return [part[-each.keep :] for part, each in zip(parts, readings, strict=True)]

    def _shape(self, readings: Sequence[Reading], rows: Sequence[int]) -> Shape:
        """As small as it can be; one of a few where it is to be recorded."""
        tokens, width = sum(each.count for each in readings), max(each.count for each in readings)
        positions = max(each.end for each in readings)
        if self._graphs is None:
            return Shape(tokens, max(rows) + 1, width, positions)
        return Shape(
            bucket_of_tokens(tokens),
            min(1 << max(rows).bit_length(), self.memory.rows),
            next(size for size in SIZES if size >= width),
            min(bucket_for(positions), self.memory.positions),
        )

    def _notice_changes(self) -> None:
        """The memory may have grown, and the decoder may be compiled now."""
        if self._graphs is not None:
            self._made += 1
            self._decoder = self._compilation.decoder(self._eager, self._graphs, self._made)
        now = self._decoder, self.memory.layers[0][0]
        if self._made_with is None or any(map(is_not, now, self._made_with)):
            if self._graphs is not None:
                self._graphs.forget()
            self._made_with = now
            self._angles = self._decoder.angles(self.memory.positions + 1)

    def _pass(self, shape: Shape, ids: torch.Tensor, where: torch.Tensor) -> tuple[torch.Tensor]:
        """Logits after all ``ids`` (int64 ``[tokens]``); ``where`` are their texts' rows, their positions there, and
        their cells of the grid, int64 ``[3, tokens]``."""
        angles = at(self._angles, lambda table: table.index_select(0, where[1]))
        grid = Grid(self._decoder, self.memory.layers, shape, where)
        return (self._decoder.predict(self._decoder.states(ids, angles, grid.attend)),)


class Grid:
    """Cells for tokens, and one more, in which nobody looks."""

    def __init__(self, decoder: DenseDecoder, layers: Sequence[Memory], shape: Shape, where: torch.Tensor) -> None:
        self._decoder, self._layers, self._shape = decoder, layers, shape
        self._rows, self._positions, self._cells = where
        # A cell that is empty sees the first position: it has to see something.
        ends = self._spread(self._positions)[..., None]
        back = ends - torch.arange(shape.positions, device=where.device)
        self._masks = {window: decoder.row_mask(seen(back, window))[:, None] for window in set(decoder.windows)}
        self._inside = self._cells.clamp(max=shape.rows * shape.width - 1)

    def _spread(self, values: torch.Tensor) -> torch.Tensor:
        """Of each token its value, ``[tokens, ...]``, in its cell: ``[rows, width, ...]``."""
        rows, width, kind = self._shape.rows, self._shape.width, values.shape[1:]
        cells = values.new_zeros(rows * width + 1, *kind).index_copy_(0, self._cells, values)
        return cells[:-1].view(rows, width, *kind)

    def attend(self, number: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """``Attend`` for the tokens in the grid."""
        keys, values = self._layers[number]
        keys.transpose(1, 2)[self._rows, self._positions] = key
        values.transpose(1, 2)[self._rows, self._positions] = value
        keys, values = (part[: self._shape.rows, :, : self._shape.positions] for part in (keys, values))
        mask = self._masks[self._decoder.windows[number]]
        return self._decoder.attend_as_rows(self._spread(query), keys, values, mask).index_select(0, self._inside)


def bucket_of_tokens(count: int) -> int:
    """The smallest of a few numbers of tokens that is not below ``count``: there are four to each doubling."""
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step
