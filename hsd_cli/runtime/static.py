"""Reading a few tokens as the same work on the same memory each time, which can be recorded and replayed.

Where in the text the tokens are is known to the device alone. Their number is padded to one of a few sizes, and of the
cache a bucket is attended to that the text just fits in. What lies behind the text, padding included, is masked, and
overwritten when the text gets there.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from hsd_cli.runtime.cache import RollbackCache
from hsd_cli.runtime.dense import DenseDecoder, Share, at
from hsd_cli.runtime.graphs import Graphs

SIZES = (1, 2, 3, 5, 9, 17)  # tokens per pass: a draft of 2^n and the token before it
FIRST_BUCKET = 256  # positions

Memory = tuple[torch.Tensor, torch.Tensor]  # of a layer's keys and values, ``[1, kv_heads, positions, head_dim]``


def bucket_for(length: int) -> int:
    """The smallest bucket with room for ``length`` positions: there are four to each doubling."""
    if length <= FIRST_BUCKET:
        return FIRST_BUCKET
    step = 1 << ((length - 1).bit_length() - 3)
    return -(-length // step) * step


class StaticReader:
    """Reads with ``decoder`` into the memory that ``cache`` has now, which must have been read into before.

    When the cache has grown its memory is another, and a new reader is needed; ``graphs`` forget what was recorded.
    """

    def __init__(self, decoder: DenseDecoder, cache: RollbackCache, graphs: Graphs) -> None:
        self._decoder = decoder
        self._graphs = graphs
        graphs.forget()
        layers: list[Any] = cache.layers
        self._memory: list[Memory] = [(layer.keys, layer.values) for layer in layers]
        self._windows: list[int | None] = [layer.window for layer in layers]
        self._capacity = layers[0].capacity
        self._angles = decoder.angles(self._capacity)
        for memory in self._memory:
            for part in memory:
                # What is masked has no weight, but no weight times bits that were never written may not be a number.
                part[:, :, cache.get_seq_length() :] = 0

    def serves(self, decoder: DenseDecoder, cache: RollbackCache) -> bool:
        """Whether the decoder is the same and the cache where it was."""
        first: Any = cache.layers[0]
        return decoder is self._decoder and first.keys is self._memory[0][0]

    def logits(self, ids: torch.Tensor, start: int, keep: int) -> torch.Tensor | None:
        """Reads ``ids`` (int64 ``[k]``) at the positions from ``start`` on; logits after the last of them if ``keep``
        is one, else after each, ``[keep, vocabulary_size]``. The cache's length is the caller's to set.

        ``None`` if there are too many tokens, no room for their padding, or no way to record.
        """
        count = len(ids)
        size = next((size for size in SIZES if size >= count), None)
        if size is None or start + size > self._capacity:
            return None
        bucket = min(bucket_for(start + size), self._capacity)
        inputs = [F.pad(ids, (0, size - count)), _number(start, ids.device)]
        if keep < size and keep == 1:
            inputs.append(_number(count - 1, ids.device))
        results = self._graphs.run((size, bucket, len(inputs)), partial(self._pass, bucket), *inputs)
        return None if results is None else results[0][:keep]

    def _pass(
        self, bucket: int, ids: torch.Tensor, start: torch.Tensor, row: torch.Tensor | None = None
    ) -> tuple[torch.Tensor]:
        """The pass proper: logits after all ``ids``, or after the one at ``row``."""
        places = start + torch.arange(len(ids), device=ids.device)
        angles = at(self._angles, lambda table: table.index_select(0, places))
        back = places[:, None] - torch.arange(bucket, device=ids.device)
        masks = {window: self._decoder.row_mask(seen(back, window)) for window in set(self._windows)}
        slots = [Slots(*layer, places, bucket) for layer in zip(self._memory, self._windows, strict=True)]
        share = Share(len(ids), masks, slots)
        states = self._decoder.states(ids, angles, partial(self._decoder.attend, [share]))
        return (self._decoder.predict(states if row is None else states.index_select(0, row)),)


class Slots:
    """One layer's keys and values at the ``places`` of a pass (int64 ``[k]``), and before them."""

    def __init__(self, memory: Memory, window: int | None, places: torch.Tensor, bucket: int) -> None:
        self._keys, self._values = memory
        self.window = window
        self._places = places
        self._bucket = bucket

    def update(self, key: torch.Tensor, value: torch.Tensor) -> Memory:
        """Writes the new ones, ``[1, kv_heads, k, head_dim]``, and returns the whole bucket."""
        self._keys.index_copy_(2, self._places, key)
        self._values.index_copy_(2, self._places, value)
        return self._keys[:, :, : self._bucket], self._values[:, :, : self._bucket]


def seen(back: torch.Tensor, window: int | None) -> torch.Tensor:
    """Which positions are seen, by how far back they are."""
    return back >= 0 if window is None else (back >= 0) & (back < window)


def _number(value: int, device: torch.device) -> torch.Tensor:
    """``[1]``; nothing is copied, so the device need not catch up."""
    return torch.full((1,), value, dtype=torch.int64, device=device)
