"""Drafter distributions as distributions over the target's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from hsd_cli.errors import UsageError


class Projection(Protocol):
    """A map from drafter distributions ``[D]`` to proposal distributions ``ψ`` ``[V]`` (or ``[V + 1]`` with void mass).

    ``drafter_ids``: int64 ``[V + 1]``, the drafter id that stands for a target id in the drafter's context.
    """

    drafter_ids: torch.Tensor

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """Drafter logits ``[1, D]`` without the ids that must not be drafted."""

    def project(self, q: torch.Tensor) -> torch.Tensor:
        """``ψ`` of a drafter distribution ``q`` ``[D]``."""


class SharedTokens:
    """``ψ(t) = Σ q(d)`` over the drafter ids ``d`` with the bytes of ``t``.

    ``pairs`` are (drafter id, target id). With ``exclusive`` all other drafter ids are masked first, so that ``ψ`` sums
    to one (Algorithm 4 of arXiv 2502.05202); without it their mass is void (Algorithm 1). Raises ``UsageError`` where
    nothing is shared.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        representative: Mapping[int, int],
        sizes: tuple[int, int],
        device: torch.device,
        *,
        exclusive: bool,
    ) -> None:
        drafter_size, self._target_size = sizes
        usable = [(d, t) for d, t in pairs if d < drafter_size and t < self._target_size]
        if not usable:
            raise UsageError(
                "tli and union need tokens that both vocabularies have, and these two share none; use slem"
            )
        self._from, self._to = torch.tensor(usable, device=device, dtype=torch.int64).reshape(-1, 2).unbind(1)
        self._excluded: torch.Tensor | None = None
        if exclusive:
            self._excluded = torch.ones(drafter_size, dtype=torch.bool, device=device)
            self._excluded[self._from] = False
        self.drafter_ids = torch.zeros(self._target_size + 1, dtype=torch.int64, device=device)
        stand_ins = {t: d for t, d in representative.items() if d < drafter_size and t < self._target_size}
        self.drafter_ids[list(stand_ins)] = torch.tensor(list(stand_ins.values()), dtype=torch.int64, device=device)

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self._excluded is None else logits.masked_fill(self._excluded, -torch.inf)

    def project(self, q: torch.Tensor) -> torch.Tensor:
        width = self._target_size + (self._excluded is None)
        psi = q.new_zeros(width).index_add_(0, self._to, q[self._from])
        if self._excluded is None:
            psi[-1] = (1 - psi.sum()).clamp(min=0)
        return psi
