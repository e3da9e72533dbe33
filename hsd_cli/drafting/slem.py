"""String-level exact match: Algorithm 2 of arXiv 2502.05202."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch

from hsd_cli.drafting.draft_model import Choosing, DraftModel
from hsd_cli.drafting.protocol import Draft
from hsd_cli.runtime.device import upload
from hsd_cli.runtime.host import to_host
from hsd_cli.runtime.model import LanguageModel
from hsd_cli.vocab.vocabulary import Vocabulary


class StringMatchDrafter:
    """Drafts text in the drafter's own vocabulary and proposes its tokens in the target's, as point masses.

    The draft is the drafter's likeliest text, at any temperature: what a point mass is accepted with is the target's
    probability of it, which is highest there (the paper samples the draft).
    """

    def __init__(self, drafter: DraftModel, vocabularies: tuple[Vocabulary, Vocabulary], target: LanguageModel) -> None:
        self._drafter = drafter
        self._drafter_vocabulary, self._target_vocabulary = vocabularies
        self._target = target
        self._choosing = Choosing("slem", self._likeliest)

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        steps = ceil(lookahead * self._drafter.steps_per_token)
        chosen = self._drafter.roll_out(text, steps, self._choosing)
        drafted = to_host(self._drafter.drafted) if chosen else []
        with self._drafter.clock.phase("translate"):
            tokens = self._translate(drafted)[:lookahead]
        return Draft(upload(tokens, self._target.device), algorithm="slem")

    def _likeliest(
        self, logits: torch.Tensor, drafted: torch.Tensor, position: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        # Without temperature and truncation, which would not change what is likeliest.
        confidence, token = self._drafter.warp.penalised(logits, drafted)[0].softmax(-1).max(-1)
        return token, confidence, position

    def _translate(self, drafted: Sequence[int]) -> list[int]:
        """Target ids that spell the drafted text, which ends at the drafter's end-of-text token."""
        drafter, target = self._drafter_vocabulary, self._target_vocabulary
        end = next((i for i, token in enumerate(drafted) if token in drafter.eos_ids), None)
        tokens = target.encode(drafter.text_bytes(drafted[:end]))
        return tokens if end is None else [*tokens, *target.eos_ids[:1]]
