"""Drafting one target token per drafter step: standard speculation, the union baseline and the intersection."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.drafting.draft_model import DraftModel
from hsd_cli.drafting.projection import Projection
from hsd_cli.drafting.protocol import Draft, ProposalRule
from hsd_cli.runtime.model import LanguageModel


class TokenDrafter:
    """Every drafter distribution becomes a ``ψ`` over the target's vocabulary, from which one token is drawn."""

    def __init__(
        self, name: str, drafter: DraftModel, projection: Projection, rule: ProposalRule, target: LanguageModel
    ) -> None:
        self._name = name
        self._drafter = drafter
        self._projection = projection
        self._rule = rule
        self._target = target

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        tokens: list[torch.Tensor] = []
        rows: list[torch.Tensor] = []

        def choose(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            restricted = self._projection.restrict(logits)
            psi = self._projection.project(self._drafter.warp.probabilities(restricted, self._drafter.drafted)[0])
            psi = psi.to(self._target.device)
            token = self._rule.propose(psi, len(text) + len(tokens))[None]
            tokens.append(token)
            rows.append(psi[: self._target.vocabulary_size])
            # Not `psi[token]`, which would wait for the device.
            return self._projection.drafter_ids[token.to(logits.device)][0], psi.index_select(0, token)[0]

        self._drafter.roll_out(text, lookahead, choose)
        if not tokens:
            return Draft(torch.empty(0, dtype=torch.int64, device=self._target.device), algorithm=self._name)
        return Draft(torch.cat(tokens), torch.stack(rows), self._name)
