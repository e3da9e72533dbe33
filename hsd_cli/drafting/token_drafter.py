"""Drafting one target token per drafter step: standard speculation, the union baseline and the intersection."""

from __future__ import annotations

import torch

from hsd_cli.drafting.context import Context
from hsd_cli.drafting.model_drafter import ModelDrafter
from hsd_cli.drafting.projection import Projection
from hsd_cli.drafting.protocol import Draft, ProposalRule, Warp
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.model import LanguageModel


class TokenDrafter(ModelDrafter):
    """Every drafter distribution becomes a ``ψ`` over the target's vocabulary, from which one token is drawn."""

    def __init__(
        self,
        name: str,
        model: LanguageModel,
        context: Context,
        projection: Projection,
        warp: Warp,
        rule: ProposalRule,
        clock: PhaseClock,
        target: LanguageModel,
    ) -> None:
        super().__init__(model, context, warp, clock)
        self.name = name
        self._projection = projection
        self._rule = rule
        self._target = target

    def draft(self, lookahead: int, position: int) -> Draft:
        tokens: list[torch.Tensor] = []
        rows: list[torch.Tensor] = []

        def choose(logits: torch.Tensor, step: int) -> torch.Tensor:
            q = self._warp.probabilities(self._projection.restrict(logits), self._drafted)[0]
            psi = self._projection.project(q).to(self._target.device)
            token = self._rule.propose(psi, position + step)
            tokens.append(token)
            rows.append(psi[: self._target.vocabulary_size])
            return self._projection.drafter_ids.index_select(0, token[None].to(q.device))[0]  # waits for no device

        self._roll_out(lookahead, choose)
        if not tokens:
            return Draft(torch.empty(0, dtype=torch.int64, device=self._target.device))
        return Draft(torch.stack(tokens), torch.stack(rows))
