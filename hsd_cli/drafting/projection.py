"""What a drafter may draw from, and what it is in the target's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.drafting.protocol import Warp
from hsd_cli.errors import UsageError


class Projection:
    """Columns to draw from: a drafter id each, and the target id that is proposed for it.

    ``ψ(t)`` is the sum over the columns of ``t``. All other drafter ids are masked, so that it sums to one (Algorithm 4
    of arXiv 2502.05202); with ``void`` they are one more column, of a target id that there is not (Algorithm 1).

    ``drafter_ids`` (on the drafter's device) and ``target_ids`` (on the one where columns are drawn): int64 ``[C]``.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        sizes: tuple[int, int],
        devices: tuple[torch.device, torch.device],
        *,
        void: bool = False,
    ) -> None:
        """``pairs`` are (drafter id, target id); ids past the ``sizes`` of the heads are left out. Raises
        ``UsageError`` where nothing is left."""
        drafter_size, self.target_size = sizes
        usable = [(d, t) for d, t in pairs if d < drafter_size and t < self.target_size]
        if not usable:
            raise UsageError(
                "this algorithm needs tokens that both vocabularies have, and these two share none; use slem"
            )
        if void:
            usable.append((0, self.target_size))  # which id the drafter reads in its place is of no matter
        drafter_ids, target_ids = torch.tensor(usable, dtype=torch.int64).T.contiguous().unbind()
        self.drafter_ids, self.target_ids = drafter_ids.to(devices[0]), target_ids.to(devices[1])
        self._void = void

    def weights(self, warp: Warp, logits: torch.Tensor, drafted: torch.Tensor) -> torch.Tensor:
        """The probability of each column, ``[C]``, by the drafter's ``logits`` (``[1, D]``) after ``drafted``."""
        if not self._void:
            return warp.probabilities(logits, drafted, self.drafter_ids)[0]
        shared = warp.probabilities(logits, drafted)[0].index_select(0, self.drafter_ids[:-1])
        return torch.cat([shared, (1 - shared.sum(0, keepdim=True)).clamp(min=0)])

    # Of twins (a letter, and the byte token for it) drafters write only one: adding them up would be for nothing.
    def together(self, weights: torch.Tensor) -> torch.Tensor:
        return weights

    def heaviest(self, weights: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        return column

    def psi(self, weights: torch.Tensor) -> torch.Tensor:
        """``[m, V]``, of the columns' weights ``[m, C]``; void mass is missing."""
        rows = weights.new_zeros(len(weights), self.target_size + 1)
        return rows.scatter_add_(1, self.target_ids.expand_as(weights), weights)[:, :-1]
