"""Drawing columns of a projection, one with each step of the drafter."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.drafting.draft_model import Choosing, DraftModel
from hsd_cli.drafting.projection import Projection
from hsd_cli.drafting.protocol import ProposalRule
from hsd_cli.runtime.model import LanguageModel


class Drawing:
    """Has ``drafter`` draw from ``projection`` as ``rule`` proposes. ``lengths``: how many target tokens a column
    stands for, int64 ``[C]`` on the drafter's device; one if not given."""

    def __init__(
        self,
        name: str,
        drafter: DraftModel,
        projection: Projection,
        rule: ProposalRule,
        target: LanguageModel,
        lengths: torch.Tensor | None = None,
    ) -> None:
        self.name = name
        self.drafter = drafter
        self.target_device = target.device
        self.uses_psi = rule.uses_psi
        self._projection = projection
        self._rule = rule
        self._lengths = lengths
        self._choosing = Choosing(name, self._choose, rule.generator)

    def roll_out(self, text: Sequence[int], steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each step that was taken the column (int64 ``[1]``) and the weights that it was drawn from (``[C]``)."""
        return [(column, weights) for *_, column, weights in self.drafter.roll_out(text, steps, self._choosing)]

    def _choose(self, logits: torch.Tensor, drafted: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Also reveals column and weights, for both of which random numbers are the target's."""
        weights = self._projection.weights(self.drafter.warp, logits, drafted).to(self.target_device)
        column = self._rule.propose(weights, self._projection, position.to(self.target_device))
        # Not `weights[column]`, which would wait for the device.
        confidence = weights.index_select(0, column)[0]
        here = column.to(logits.device)
        after = position + (1 if self._lengths is None else self._lengths.index_select(0, here))
        return self._projection.drafter_ids.index_select(0, here)[0], confidence, after, column, weights
