"""Drafting one target token per drafter step: standard speculation, the union baseline and the intersection."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.drafting.draft_model import Choosing, DraftModel
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

        self._choosing = Choosing(name, self._choose, rule.generator)

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        chosen = self._drafter.roll_out(text, lookahead, self._choosing)
        if not chosen:
            return Draft(torch.empty(0, dtype=torch.int64, device=self._target.device), algorithm=self._name)
        *_, tokens, rows = zip(*chosen, strict=True)
        return Draft(torch.cat(tokens), torch.stack(rows), self._name)

    def _choose(self, logits: torch.Tensor, drafted: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Also reveals the target token, int64 ``[1]``, and its ``ψ``, ``[V]``."""
        restricted = self._projection.restrict(logits)
        psi = self._projection.project(self._drafter.warp.probabilities(restricted, drafted)[0])
        psi = psi.to(self._target.device)
        token = self._rule.propose(psi, position.to(psi.device))[None]
        drawn = self._projection.drafter_ids[token.to(logits.device)][0]
        # Not `psi[token]`, which would wait for the device.
        return drawn, psi.index_select(0, token)[0], position + 1, token, psi[: self._target.vocabulary_size]
