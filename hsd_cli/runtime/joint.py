"""Forward passes that several texts share: the weights are read once for all.

Each text is written by a greenlet of its own, by code that knows nothing of the others. It stands still where it needs
a pass; when all do, those that need the same model get one together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from greenlet import getcurrent, greenlet

from hsd_cli.runtime.cache import RollbackCache
from hsd_cli.runtime.compiling import Compilation
from hsd_cli.runtime.dense import DenseDecoder, Reading
from hsd_cli.runtime.graphs import graphs_for
from hsd_cli.runtime.grid import GridReader
from hsd_cli.runtime.lack_of_memory import naming_lack_of_memory
from hsd_cli.runtime.seats import SeatCache, SharedMemory
from hsd_cli.runtime.threads import Threads

MOST_TOKENS = 2048  # of a pass over several texts: bounds the memory that its activations take


@dataclass(frozen=True)
class Waiting:
    """A text that stands still, and what it needs to be read."""

    text: greenlet
    reading: Reading


@dataclass(frozen=True)
class Pass:
    """What was read at once: ``tokens`` of all texts. ``drafts``: they were no more than drafts, not prompts."""

    tokens: int
    drafts: bool


class JointPasses:
    """Where the texts of one thread meet that use one model. ``read`` is called by their greenlets, ``run`` by the
    greenlet that made those."""

    def __init__(self) -> None:
        self._grid: GridReader | None = None
        self._threads: Threads | None = None
        self._waiting: dict[greenlet, Waiting] = {}

    def __len__(self) -> int:
        """The number of texts that stand still."""
        return len(self._waiting)

    def cache(
        self, decoder: DenseDecoder, compilation: Compilation, capacity: int, threads: Threads | None = None
    ) -> RollbackCache:
        """One beside those of the others."""
        self._threads = threads
        if self._grid is None:
            self._grid = GridReader(decoder, SharedMemory(decoder), graphs_for(decoder.device), compilation)
        return SeatCache(self._grid.memory, capacity)

    def trim(self) -> None:
        """Frees what it keeps for texts that there are no more."""
        if self._grid is not None:
            self._grid.memory.trim()

    def read(self, reading: Reading) -> torch.Tensor:
        """The logits that ``reading`` wants, once there was a pass; others write on in the meantime."""
        text = getcurrent()
        assert text.parent is not None, "only texts in greenlets can wait for each other"
        self._waiting[text] = Waiting(text, reading)
        try:
            logits: torch.Tensor = text.parent.switch()
        finally:
            self._waiting.pop(text, None)  # also if the text is given up
        return logits

    def run(self) -> Pass:
        """One pass; then each of its texts goes on until it waits again, or leaves for another reason.

        Where it fails, of too little memory or anything else, the texts are read in smaller groups. One that cannot
        even be read alone gets the exception: it may do without this model, and the others go on.
        """
        group = _first_few(list(self._waiting.values()))
        tokens = sum(each.reading.count for each in group)
        drafts = all(each.reading.keep == each.reading.count for each in group)
        for each, logits in zip(group, self._read_together(group), strict=True):
            if isinstance(logits, torch.Tensor):
                each.text.switch(logits)
            else:
                each.text.throw(logits)
        return Pass(tokens, drafts)

    def _read_together(self, group: Sequence[Waiting]) -> list[torch.Tensor | Exception]:
        assert self._grid is not None
        try:
            with naming_lack_of_memory():
                read = partial(self._grid.logits, [each.reading for each in group])
                if self._threads is None:
                    return list(read())
                return list(self._threads.run(read, sum(each.reading.count for each in group)))
        except Exception as error:  # of a library, of the device: there is no telling
            for each in group:
                each.reading.cache.rollback(each.reading.start)  # some layers have read it
            if len(group) == 1:
                return [error]
        half = len(group) // 2
        return self._read_together(group[:half]) + self._read_together(group[half:])


def _first_few(waiting: list[Waiting]) -> list[Waiting]:
    """As many as one pass may have tokens, at least one."""
    tokens = 0
    for count, each in enumerate(waiting):
        tokens += each.reading.count
        if count and tokens > MOST_TOKENS:
            return waiting[:count]
    return waiting
