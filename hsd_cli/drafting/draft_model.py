"""A drafter model at work on one text: reads what is new, steps ahead, falls back in step. Algorithms share it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import torch

from hsd_cli.drafting.context import COMMITS_BACK, Context
from hsd_cli.drafting.protocol import Warp
from hsd_cli.errors import HsdError
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.graphs import Graphs
from hsd_cli.runtime.host import to_host
from hsd_cli.runtime.model import LanguageModel

MOST_STEPS = 16  # of most drafts; longer ones have room, too

# From the drafter's logits (``[1, D]``), the ids drafted so far and the position in the target's text (int64 ``[1]``)
# to the next drafter id and the probability it had (both without dimensions), the position after it, and whatever else
# is to be known of it. Host values do not change from one call to the next: see ``Graphs``.
Choose = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Choosing:
    """How an algorithm chooses drafter tokens, and the source of its random numbers, if it has one."""

    name: str
    choose: Choose
    generator: torch.Generator | None = None


class Patience(Protocol):
    """Decides when a draft is long enough. It sees what was drawn, never what would be drawn next."""

    def plan(self, most: int) -> int:
        """How many tokens to draft, decided beforehand: ``go_on`` is told of each, and need not look at it."""

    def go_on(self, confidence: torch.Tensor) -> bool:
        """Whether to draft another token after one that had this probability (no dimensions)."""

    def learn(self, confirmed: int) -> None:
        """How many of the last draft's tokens the text then confirmed."""


@dataclass(frozen=True)
class _Followed:
    """How the text was followed once: the target ids ``tokens`` from ``start`` on, which were checked against
    ``drafted``. Of the ids before them and ``drafted`` the first ``unchanged`` stayed.
    """

    start: int
    tokens: Sequence[int]
    drafted: torch.Tensor
    unchanged: int


class DraftModel:
    """A drafter model, its context, and the cache that follows the context.

    ``prompt_length`` is the number of target ids that ``context`` stands for at first. ``steps_per_token``: how many
    ids the drafter needs for a target token, at a guess; what is committed corrects it. ``graphs`` choose them.
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
        graphs: Graphs | None = None,
    ) -> None:
        self.model = model
        self.warp = warp
        self.clock = clock
        self.drafted = torch.empty(0, dtype=torch.int64, device=model.device)
        self._confidences: list[torch.Tensor] = []
        self._context = context
        self._patience = patience
        self._graphs = graphs
        self._followed = self._start = prompt_length
        self._past: deque[_Followed] = deque(maxlen=COMMITS_BACK)
        self._own_start = len(context.ids)
        self._guess = steps_per_token
        warp.follow(context.ids, 0)
        model.begin(context.ids)

    @property
    def steps_per_token(self) -> float:
        """Drafter ids per target id in the text since the prompt, with the guess in place of 32 tokens."""
        own, target = len(self._context.ids) - self._own_start, self._followed - self._start
        return (own + 32 * self._guess) / (target + 32)

    def roll_out(self, text: Sequence[int], steps: int, choosing: Choosing) -> list[tuple[torch.Tensor, ...]]:
        """Drafts up to ``steps`` drafter ids that continue ``text`` (target ids): what was chosen at each, see
        ``Choose``; ``drafted`` has the ids (int64).

        Drafts nothing where the drafter's own context would overflow.
        """
        self._follow(text)
        steps = min(steps, self.model.context_size - len(self._context.ids))
        if steps <= 0:
            return []
        if self._patience is not None and self.model.device.type != "cpu":
            steps = self._patience.plan(steps)  # to ask after each token would be to wait for each
        # Places that are still empty repeat what the context has.
        drafted = torch.full((_room(steps),), self._context.ids[-1], device=self.model.device)
        position = torch.full((1,), len(text), device=self.model.device)
        chosen: list[tuple[torch.Tensor, ...]] = []
        self._confidences = []
        logits = self._read_context()
        for step in range(steps):
            chosen.append(self._choose(choosing, logits, drafted, position))
            drafted[step], confidence, position = chosen[-1][:3]
            self.drafted = drafted[: step + 1]
            self._confidences.append(confidence)
            if not (self._patience is None or self._patience.go_on(confidence)) or step + 1 == steps:
                break
            logits = self.model.run(self.drafted[step:])
        return chosen

    def _choose(self, choosing: Choosing, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self._graphs is not None:
            shapes = tuple(each.shape for each in inputs)
            chosen = self._graphs.run((choosing.name, shapes), choosing.choose, *inputs, generator=choosing.generator)
            if chosen is not None:
                return chosen
        return choosing.choose(*inputs)

    def _follow(self, text: Sequence[int]) -> None:
        """Reads the target ids that were appended since the last draft; what they confirm of it stays in the cache.

        Those of the last times are taken back if there are others in their place now.
        """
        kept = self._take_back(text)
        new = text[self._followed :]
        if not new and kept is None and not len(self.drafted):
            return
        with self.clock.phase("translate"):
            before = len(self._context.ids)
            unchanged = self._context.commit(new, self._drafted_ids())
        if self._patience is not None and len(self.drafted):
            self._patience.learn(max(0, unchanged - before))
        if kept is not None:
            unchanged = min(unchanged, kept)
        self._past.append(_Followed(self._followed, new, self.drafted, unchanged))
        self._followed = len(text)
        self.drafted, self._confidences = self.drafted[:0], []
        self.warp.follow(self._context.ids, unchanged)
        self.model.rollback(min(self.model.length, unchanged))

    def _take_back(self, text: Sequence[int]) -> int | None:
        """Goes back before the first ids followed lately that are not in ``text``. Then it returns how many of the
        leading ids of context and draft the cache still has.
        """
        is_there = [text[each.start : each.start + len(each.tokens)] == each.tokens for each in self._past]
        if all(is_there):
            return None
        wrong = [self._past.pop() for _ in is_there[is_there.index(False) :]]
        for each in wrong:
            self._context.undo()
            self._followed, self.drafted = each.start, each.drafted
        return min(each.unchanged for each in wrong)

    def _drafted_ids(self) -> list[int]:
        """Raises ``HsdError`` if they were drawn from what are no numbers: one look at the device tells both."""
        count = len(self._confidences)
        if not count:
            return to_host(self.drafted)
        # Joined they are float32, which holds every id.
        numbers = to_host(torch.cat([torch.stack(self._confidences), self.drafted]))
        if not all(map(isfinite, numbers[:count])):
            raise HsdError("its logits are not numbers; try --draft-dtype float32")
        return [*map(int, numbers[count:])]

    def _read_context(self) -> torch.Tensor:
        """Logits after the whole context, ``[1, D]``; only what the cache lacks is read."""
        ids = self._context.ids
        if self.model.length == len(ids):
            self.model.rollback(len(ids) - 1)
        if self.model.length < self._own_start:
            with self.clock.waited_for("prefill", self.model.device, after="prefill"):
                return self.model.prefill(ids[self.model.length :])
        return self.model.prefill(ids[self.model.length :])


def _room(steps: int) -> int:
    """Places for the ids of a draft: not many different numbers of them."""
    return max(MOST_STEPS, 1 << (steps - 1).bit_length())
