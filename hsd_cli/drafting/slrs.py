"""String-level rejection sampling, exact at one pass over the drafter's vocabulary per drafted token.

The law of the target token that a drafted text begins with (Algorithm 3 of arXiv 2502.05202) takes exponentially many
drafter evaluations. Here the target's segmentation is taken of one drafter token at a time: each drafted token becomes
the target tokens that spell it, and whether it is spelled out or goes on is revealed only after the token before was
checked. Given what is revealed, every proposal comes from exactly the ``ψ`` that the verifier is given.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import ceil

import torch

from hsd_cli.drafting.draft_model import Choosing, DraftModel
from hsd_cli.drafting.protocol import Draft, ProposalRule
from hsd_cli.errors import UsageError
from hsd_cli.runtime.device import upload
from hsd_cli.runtime.host import to_host
from hsd_cli.runtime.model import LanguageModel
from hsd_cli.vocab.segmentation import Segment


class PushForward:
    """A drafter's distribution as distributions of the target tokens that spell what it draws.

    Drafter ids without a segment, and segments with ids past the target's head, are never drawn. Raises ``UsageError``
    if nothing else is left.
    """

    def __init__(self, segments: Sequence[Segment], sizes: tuple[int, int], device: torch.device) -> None:
        drafter_size, self.target_size = sizes
        padded = [*segments[:drafter_size], *[()] * (drafter_size - len(segments))]
        self.segments = [segment if max(segment, default=0) < self.target_size else () for segment in padded]
        usable = [index for index, segment in enumerate(self.segments) if segment]
        if not usable:
            raise UsageError("slrs needs tokens that the target can spell, and this drafter has none; use slem")
        # In this order all ids whose segments begin with the same tokens are neighbours, the shortest first.
        order = sorted(usable, key=self.segments.__getitem__)
        self._sorted = [self.segments[index] for index in order]
        starts = list(accumulate(map(len, self._sorted), initial=0))
        self._order = torch.tensor(order, dtype=torch.int64, device=device)
        self._starts = torch.tensor(starts[:-1], dtype=torch.int64, device=device)
        self._flat = torch.tensor([token for segment in self._sorted for token in segment], device=device)
        self._excluded = torch.ones(drafter_size, dtype=torch.bool, device=device)
        self._excluded[self._order] = False
        self._first = torch.zeros(drafter_size, dtype=torch.int64, device=device)
        self._first[self._order] = self._flat[self._starts]
        self._lengths = torch.tensor([len(segment) for segment in self.segments], device=device)

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """Drafter logits ``[1, D]`` without the ids that must not be drawn."""
        return logits.masked_fill(self._excluded, -torch.inf)

    def first(self, q: torch.Tensor) -> torch.Tensor:
        """``ψ`` of the first target token, ``[V]``, for a drafter distribution ``q`` ``[D]``."""
        return q.new_zeros(self.target_size).index_add_(0, self._first, q)

    def spelled_with(self, token: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        """``q`` where the segment begins with ``token`` (int64 ``[1]``), zero elsewhere; ``[D]``."""
        return q * (self._first == token)

    def length(self, drawn: torch.Tensor) -> torch.Tensor:
        """Number of target tokens that spell ``drawn`` (int64 ``[1]``); same shape."""
        return self._lengths[drawn]

    def following(self, q: torch.Tensor, drawn: int) -> Iterator[tuple[int, torch.Tensor]]:
        """The target tokens of ``drawn`` after its first, each with its ``ψ`` ``[V]``.

        Given the tokens before it and that there is another one: ``q`` over the segments that agree and go on.
        """
        segment = self.segments[drawn]
        for place in range(1, len(segment)):
            agreeing = segment[:place]
            start = bisect_right(self._sorted, agreeing)
            end = bisect_left(self._sorted, (*agreeing[:-1], agreeing[-1] + 1))
            weights = q[self._order[start:end]]
            psi = q.new_zeros(self.target_size).index_add_(0, self._flat[self._starts[start:end] + place], weights)
            yield segment[place], psi / weights.sum()


class StringRejectionDrafter:
    """Draws drafter tokens and proposes the target tokens that spell them, with their exact distributions."""

    def __init__(
        self, drafter: DraftModel, push_forward: PushForward, rule: ProposalRule, target: LanguageModel
    ) -> None:
        self._drafter = drafter
        self._push_forward = push_forward
        self._rule = rule
        self._target = target
        self._choosing = Choosing("slrs", self._choose, rule.generator)

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        # A drafter token gives one target token at least.
        steps = ceil(lookahead * min(1.0, self._drafter.steps_per_token))
        chosen = self._drafter.roll_out(text, steps, self._choosing)
        drafted = to_host(self._drafter.drafted) if chosen else []
        tokens: list[int] = []
        rows: list[torch.Tensor] = []
        for drawn, (*_, q, psi) in zip(drafted, chosen, strict=True):
            segment = self._push_forward.segments[drawn]
            if not segment:  # never drawn, unless the drafter's numbers are not sound
                break
            tokens.append(segment[0])
            rows.append(psi)
            for token, row in self._push_forward.following(q, drawn):
                tokens.append(token)
                rows.append(row.to(self._target.device))
        if not tokens:
            return Draft(torch.empty(0, dtype=torch.int64, device=self._target.device), algorithm="slrs")
        return Draft(upload(tokens[:lookahead], self._target.device), torch.stack(rows[:lookahead]), "slrs")

    def _choose(self, logits: torch.Tensor, drafted: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """First the target token, by its noise if there is any, then a drafter token that begins with it.

        Also reveals the drafter's distribution, ``[D]``, and the target token's, ``[V]``.
        """
        here, there = logits.device, self._target.device  # the rule's random numbers are the target's
        restricted = self._push_forward.restrict(logits)
        q = self._drafter.warp.probabilities(restricted, drafted)[0]
        psi = self._push_forward.first(q).to(there)
        token = self._rule.propose(psi, position.to(there))[None]
        spelled = self._push_forward.spelled_with(token.to(here), q)
        drawn = self._rule.settle(spelled.to(there))[None].to(here)
        after = position + self._push_forward.length(drawn)
        return drawn[0], psi.index_select(0, token)[0], after, q, psi
