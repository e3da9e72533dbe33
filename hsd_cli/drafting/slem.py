"""String-level exact match: Algorithm 2 of arXiv 2502.05202."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch

from hsd_cli.drafting.context import Context
from hsd_cli.drafting.model_drafter import ModelDrafter
from hsd_cli.drafting.protocol import Draft, Warp
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.model import LanguageModel
from hsd_cli.vocab.vocabulary import Vocabulary

MOST_STEPS_PER_TOKEN = 4


class StringMatchDrafter(ModelDrafter):
    """Drafts text in the drafter's own vocabulary and proposes its tokens in the target's, as point masses.

    The draft is the drafter's likeliest text, at any temperature: what a point mass is accepted with is the target's
    probability of it, which is highest there (the paper samples the draft).
    """

    name = "slem"

    def __init__(
        self,
        model: LanguageModel,
        context: Context,
        vocabularies: tuple[Vocabulary, Vocabulary],
        prompt_length: int,
        warp: Warp,
        clock: PhaseClock,
        target: LanguageModel,
    ) -> None:
        super().__init__(model, context, warp, clock)
        self._drafter_vocabulary, self._target_vocabulary = vocabularies
        self._target_length = prompt_length
        self._target = target

    def draft(self, lookahead: int, position: int) -> Draft:
        # As many drafter steps as it takes, at this text's own rate, to spell `lookahead` target tokens. Two chat
        # templates can differ in length by far more than the two tokenizers do: hence the bound.
        steps = min(ceil(lookahead * len(self._context.ids) / self._target_length), MOST_STEPS_PER_TOKEN * lookahead)

        def choose(logits: torch.Tensor, step: int) -> torch.Tensor:
            return self._warp.probabilities(logits, self._drafted)[0].argmax()

        drafted = self._roll_out(steps, choose).tolist()
        with self._clock.phase("translate"):
            tokens = self._translate(drafted)[:lookahead]
        return Draft(torch.tensor(tokens, dtype=torch.int64, device=self._target.device))

    def _translate(self, drafted: Sequence[int]) -> list[int]:
        """Target ids that spell the drafted text, which ends at the drafter's end-of-text token."""
        drafter, target = self._drafter_vocabulary, self._target_vocabulary
        end = next((i for i, token in enumerate(drafted) if token in drafter.eos_ids), None)
        tokens = target.encode(drafter.text_bytes(drafted[:end]))
        return tokens if end is None else [*tokens, *target.eos_ids[:1]]

    def commit(self, tokens: Sequence[int]) -> None:
        self._target_length += len(tokens)
        super().commit(tokens)
