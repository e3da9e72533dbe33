"""An engine that counts the forward passes of its models."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.engine import Engine
from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.runtime.model import CachedModel


class CountedModel(CachedModel):
    """``passes`` over new tokens since it was made."""

    passes = 0

    def prefill(self, ids: Sequence[int]) -> torch.Tensor:
        self.passes += 1
        return super().prefill(ids)

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return super().run(ids)


class CountedEngine(Engine):
    @property
    def drafter_passes(self) -> int:
        """Since the engine last forgot its texts; the first one read the prompt."""
        model = self._models.get("drafter")
        return model.passes if isinstance(model, CountedModel) else 0

    def _cached(self, role: str, loaded: LoadedModel, capacity: int) -> CachedModel:
        if role not in self._models:
            self._models[role] = CountedModel(loaded.model, capacity)
        return self._models[role]
