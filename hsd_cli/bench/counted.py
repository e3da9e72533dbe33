"""An engine that counts and times the forward passes of its models."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import torch

from hsd_cli.engine import Engine
from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.runtime.model import CachedModel


class CountedModel(CachedModel):
    """``passes`` over new tokens since it was made, and their ``seconds``, where a pass has ended when it returns."""

    passes = 0
    seconds = 0.0

    def prefill(self, ids: Sequence[int]) -> torch.Tensor:
        self.passes += 1
        return super().prefill(ids)

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return super().run(ids)

    def _forward(self, ids: torch.Tensor, keep: int) -> torch.Tensor:
        begun = perf_counter()
        logits = super()._forward(ids, keep)
        self.seconds += perf_counter() - begun
        return logits


class CountedEngine(Engine):
    @property
    def drafter_passes(self) -> int:
        """Since the engine last forgot its texts; the first one read the prompt."""
        model = self._models.get("drafter")
        return model.passes if isinstance(model, CountedModel) else 0

    @property
    def pass_seconds(self) -> dict[str, float]:
        """By model, since the engine last forgot its texts."""
        models = self._models.items()
        return {role: model.seconds for role, model in models if isinstance(model, CountedModel)}

    def _cached(self, role: str, loaded: LoadedModel, capacity: int) -> CachedModel:
        if role not in self._models:
            self._models[role] = CountedModel(loaded.model, capacity, compilation=loaded.compilation)
        return self._models[role]
