"""Standard speculation: drafter and target share one vocabulary."""

from __future__ import annotations

import torch
import torch.nn.functional as F


class SameTokens:
    """``ψ = q``. The models' heads may be padded differently: ids past the vocabulary are never proposed."""

    def __init__(self, vocabulary_size: int, drafter_size: int, target_size: int, device: torch.device) -> None:
        self._usable = min(vocabulary_size, drafter_size, target_size)
        self._padding = torch.arange(drafter_size, device=device) >= self._usable
        self._target_size = target_size
        self.drafter_ids = torch.arange(target_size + 1, device=device).clamp(max=drafter_size - 1)

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if logits.shape[1] == self._usable else logits.masked_fill(self._padding, -torch.inf)

    def project(self, q: torch.Tensor) -> torch.Tensor:
        return F.pad(q[: self._usable], (0, self._target_size - self._usable))
