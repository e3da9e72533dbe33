"""A model that several processes compute together: each has a share of every matrix, and reads the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from hsd_cli.errors import HsdError
from hsd_cli.runtime.model import CachedModel
from hsd_cli.runtime.ranks import Ranks, Step, about_others

T = TypeVar("T")


class LeadingModel(CachedModel):
    """The first process's. The others begin and read what it begins and reads.

    There is one at a time, the newest: those before raise ``HsdError``.
    """

    def __init__(self, model: PreTrainedModel, capacity: int, ranks: Ranks) -> None:
        self._ranks = ranks
        ranks.reader = self
        with ranks.step(Step.BEGIN, capacity):
            super().__init__(model, capacity)

    @torch.inference_mode()
    def _forward(self, ids: torch.Tensor, keep: int) -> torch.Tensor:
        if self._ranks.reader is not self:
            raise HsdError("--tensor-parallel writes one text at a time")
        with self._ranks.step(Step.READ, self.length, len(ids), keep) as told:
            return super()._forward(self._ranks.share(ids) if told else ids, keep)


class FollowingModel(CachedModel):
    """Another process's."""

    @torch.inference_mode()
    def read_along(self, ranks: Ranks, start: int, count: int, keep: int) -> None:
        """Reads what the first process reads: ``count`` tokens at the positions from ``start`` on."""
        self.rollback(start)
        self._forward(ranks.share(torch.empty(count, dtype=torch.int64, device=self.device)), keep)


def load_together(ranks: Ranks, load: Callable[[], T]) -> T:
    """What ``load`` returns, once all processes have it. Raises ``HsdError`` in all of them if it does so in one."""
    failure, loaded = None, None
    try:
        loaded = load()
    except HsdError as error:
        failure = str(error)
    ranks.agree(failure)
    assert loaded is not None
    return loaded


def follow(ranks: Ranks, load: Callable[[], PreTrainedModel]) -> None:
    """What a process does that is not the first one, until that one ends. ``load`` gives it its share of the model.

    Raises ``HsdError`` for what happens to it alone; the first process tells the rest.
    """
    model: PreTrainedModel | None = None
    reader: FollowingModel | None = None
    try:
        while (heard := ranks.hear())[0] is not Step.END:
            step, numbers = heard
            if step is Step.LOAD:
                model = load_together(ranks, load)
            elif step is Step.BEGIN:
                assert model is not None
                reader = FollowingModel(model, numbers[0])
            else:
                assert reader is not None
                reader.read_along(ranks, *numbers)
    except HsdError:
        return
    except torch.OutOfMemoryError as error:
        raise HsdError(f"process {ranks.rank}: {ranks.device} ran out of memory") from error
    except RuntimeError as error:
        if not about_others(error):
            raise
