"""A drafter model at work on one text: reads what is new, steps ahead, falls back in step. Algorithms share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from hsd_cli.drafting.context import Context
from hsd_cli.drafting.protocol import Warp
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.model import LanguageModel

# From the drafter's logits (``[1, D]``) to the next drafter id and the probability it had (both without dimensions).
Choose = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Patience(Protocol):
    """Decides when a draft is long enough. It sees what was drawn, never what would be drawn next."""

    def go_on(self, confidence: torch.Tensor) -> bool:
        """Whether to draft another token after one that had this probability (no dimensions)."""

    def learn(self, confirmed: int) -> None:
        """How many of the last draft's tokens the text then confirmed."""


class DraftModel:
    """A drafter model, its context, and the cache that follows the context.

    ``prompt_length`` is the number of target ids that ``context`` stands for at first. ``steps_per_token``: how many
    ids the drafter needs for a target token, at a guess; what is committed corrects it.
    """

    def __init__(
        self,
        model: LanguageModel,
        context: Context,
        prompt_length: int,
        warp: Warp,
        clock: PhaseClock,
        patience: Patience | None = None,
        steps_per_token: float = 1.0,
    ) -> None:
        self.model = model
        self.warp = warp
        self.clock = clock
        self.drafted = torch.empty(0, dtype=torch.int64, device=model.device)
        self._context = context
        self._patience = patience
        self._followed = self._start = prompt_length
        self._own_start = len(context.ids)
        self._guess = steps_per_token
        warp.follow(context.ids, 0)
        model.begin(context.ids)

    @property
    def steps_per_token(self) -> float:
        """Drafter ids per target id in the text since the prompt, with the guess in place of 32 tokens."""
        own, target = len(self._context.ids) - self._own_start, self._followed - self._start
        return (own + 32 * self._guess) / (target + 32)

    def roll_out(self, text: Sequence[int], steps: int, choose: Choose) -> torch.Tensor:
        """Drafts up to ``steps`` drafter ids (int64) that continue ``text`` (target ids), each as ``choose`` says.

        Drafts nothing where the drafter's own context would overflow.
        """
        self._follow(text)
        steps = min(steps, self.model.context_size - len(self._context.ids))
        if steps <= 0:
            return self.drafted
        drafted = torch.empty(steps, dtype=torch.int64, device=self.model.device)
        logits = self._read_context()
        for step in range(steps):
            drafted[step], confidence = choose(logits)
            self.drafted = drafted[: step + 1]
            if not (self._patience is None or self._patience.go_on(confidence)) or step + 1 == steps:
                break
            logits = self.model.run(self.drafted[step:])
        return self.drafted

    def _follow(self, text: Sequence[int]) -> None:
        """Reads the target ids that were appended since the last draft; what they confirm of it stays in the cache."""
        new = text[self._followed :]
        if not new:
            return
        with self.clock.phase("translate"):
            before = len(self._context.ids)
            unchanged = self._context.commit(new, self.drafted.tolist())
        if self._patience is not None and len(self.drafted):
            self._patience.learn(max(0, unchanged - before))
        self._followed = len(text)
        self.drafted = self.drafted[:0]
        self.warp.follow(self._context.ids, unchanged)
        self.model.rollback(min(self.model.length, unchanged))

    def _read_context(self) -> torch.Tensor:
        """Logits after the whole context, ``[1, D]``; only what the cache lacks is read."""
        ids = self._context.ids
        if self.model.length == len(ids):
            self.model.rollback(len(ids) - 1)
        if self.model.length < self._own_start:
            with self.clock.phase("prefill"):
                return self.model.prefill(ids[self.model.length :])
        return self.model.prefill(ids[self.model.length :])
