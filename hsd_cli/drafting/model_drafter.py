"""What every algorithm with a drafter model does: read the context, step by step draw tokens, fall back in step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from hsd_cli.drafting.context import Context
from hsd_cli.drafting.protocol import Warp
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.model import LanguageModel


class ModelDrafter:
    """A drafter model, its context, and the cache that follows the context."""

    def __init__(self, model: LanguageModel, context: Context, warp: Warp, clock: PhaseClock) -> None:
        self._model = model
        self._context = context
        self._warp = warp
        self._clock = clock
        self._drafted = torch.empty(0, dtype=torch.int64, device=model.device)
        warp.follow(context.ids, 0)

    def _roll_out(self, steps: int, choose: Callable[[torch.Tensor, int], torch.Tensor]) -> torch.Tensor:
        """Drafts ``steps`` drafter ids (int64 ``[steps]``), each what ``choose(logits [1, D], step)`` makes of it.

        Drafts nothing where the drafter's own context would overflow.
        """
        if steps == 0 or len(self._context.ids) + steps > self._model.context_size:
            return self._drafted
        drafted = torch.empty(steps, dtype=torch.int64, device=self._model.device)
        logits = self._read_context()
        for step in range(steps):
            if step > 0:
                logits = self._model.run(drafted[step - 1 : step])
            self._drafted = drafted[:step]
            drafted[step] = choose(logits, step)
        self._drafted = drafted
        return drafted

    def _read_context(self) -> torch.Tensor:
        """Logits after the whole context, ``[1, D]``; only what the cache lacks is read."""
        ids = self._context.ids
        if self._model.length == len(ids):
            self._model.rollback(len(ids) - 1)
        if self._model.length == 0:
            with self._clock.phase("prefill"):
                return self._model.prefill(ids)
        return self._model.prefill(ids[self._model.length :])

    def commit(self, tokens: Sequence[int]) -> None:
        """Follows the target: see ``Drafter.commit``."""
        with self._clock.phase("translate"):
            unchanged = self._context.commit(tokens, self._drafted.tolist())
        self._drafted = self._drafted[:0]
        self._warp.follow(self._context.ids, unchanged)
        self._model.rollback(min(self._model.length, unchanged))
