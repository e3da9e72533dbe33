"""Drawing columns of a projection, one with each step of the drafter."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.drafting.draft_model import Choosing, DraftModel
from hsd_cli.drafting.projection import Projection
from hsd_cli.drafting.protocol import Draft, ProposalRule
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
        self.nothing = Draft(torch.empty(0, dtype=torch.int64, device=target.device), algorithm=name)
        self.uses_psi = rule.uses_psi
        self._projection = projection
        self._rule = rule
        self._lengths = lengths
        self._choosing = Choosing(name, self._choose, rule.generator)

    def roll_out(self, text: Sequence[int], steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each step that was taken the column (int64 ``[1]``) and the weights that it was drawn from (``[C]``)."""
        return [(column, weights) for *_, column, weights in self.drafter.roll_out(text, steps, self._choosing)]

    def _choose(self, logits: torch.Tensor, drafted: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Also reveals column and weights, on the device where the columns' target ids are."""
        device = self._projection.target_ids.device
        weights = self._projection.weights(self.drafter.warp, logits, drafted)
        there = weights.to(device)
        column = self._rule.propose(there, self._projection, position.to(device))
        here = column.to(logits.device)
        # Not `weights[here]`, which would wait for the device.
        drawn, confidence = (each.index_select(0, here)[0] for each in (self._projection.drafter_ids, weights))
        after = position + (1 if self._lengths is None else self._lengths.index_select(0, here))
        return drawn, confidence, after, column, there
