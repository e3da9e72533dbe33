"""String-level rejection sampling, exact at one pass over the drafter's vocabulary per drafted token.

The law of the target token that a drafted text begins with (Algorithm 3 of arXiv 2502.05202) takes exponentially many
drafter evaluations. Here the target's segmentation is taken of one drafter token at a time: each drafted token becomes
the target tokens that spell it, and whether it is spelled out or goes on is revealed only after the token before was
checked. Given what is revealed, every proposal comes from exactly the ``ψ`` that the verifier is given.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice
from math import ceil

import torch

from hsd_cli.drafting.drawing import Drawing
from hsd_cli.drafting.projection import Projection
from hsd_cli.drafting.protocol import Draft
from hsd_cli.errors import UsageError
from hsd_cli.runtime.device import upload
from hsd_cli.runtime.host import to_host
from hsd_cli.vocab.segmentation import Segment


class FirstTokens(Projection):
    """A column for each drafted token: the first target token of those that spell it."""

    def together(self, weights: torch.Tensor) -> torch.Tensor:
        by_token = weights.new_zeros(self.target_size).index_add_(0, self.target_ids, weights)
        return by_token.index_select(0, self.target_ids)

    def heaviest(self, weights: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        alike = self.target_ids.eq(self.target_ids.index_select(0, column))
        return (weights * alike).argmax(0, keepdim=True)


class PushForward:
    """A drafter's distribution as distributions of the target tokens that spell what it draws.

    Drafter ids without a segment, and segments with ids past the target's head, are never drawn: ``first`` has columns
    for the others. Raises ``UsageError`` if there are none.

    ``segments`` and ``lengths`` (int64 ``[C]``, on the drafter's device) are the columns'.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        sizes: tuple[int, int],
        devices: tuple[torch.device, torch.device],
    ) -> None:
        drafter_size, target_size = sizes
        usable = [
            (segment, index)
            for index, segment in enumerate(segments[:drafter_size])
            if segment and max(segment) < target_size
        ]
        if not usable:
            raise UsageError("slrs needs tokens that the target can spell, and this drafter has none; use slem")
        usable.sort()  # columns whose segments begin with the same tokens are neighbours, the shortest first
        self.segments = [segment for segment, _ in usable]
        self.first = FirstTokens([(index, segment[0]) for segment, index in usable], sizes, devices)
        lengths = list(map(len, self.segments))
        self.lengths = torch.tensor(lengths, device=devices[0])
        self._starts = torch.tensor([0, *accumulate(lengths[:-1])], device=devices[1])
        self._flat = torch.tensor([token for segment in self.segments for token in segment], device=devices[1])

    def following(self, weights: torch.Tensor, column: int) -> Iterator[torch.Tensor]:
        """``ψ`` (``[V]``) of each target token after the first of those that spell ``column``.

        Given the tokens before it and that there is another one: ``weights`` (``[C]``) over the segments that agree and
        go on.
        """
        segment = self.segments[column]
        for place in range(1, len(segment)):
            agreeing = segment[:place]
            start = bisect_right(self.segments, agreeing)
            end = bisect_left(self.segments, (*agreeing[:-1], agreeing[-1] + 1))
            going_on, tokens = weights[start:end], self._flat[self._starts[start:end] + place]
            yield weights.new_zeros(self.first.target_size).index_add_(0, tokens, going_on) / going_on.sum()


class StringRejectionDrafter:
    """Draws drafter tokens and proposes the target tokens that spell them, with their exact distributions."""

    def __init__(self, drawing: Drawing, push_forward: PushForward) -> None:
        self._drawing = drawing
        self._push_forward = push_forward

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        # A drafter token gives one target token at least.
        steps = ceil(lookahead * min(1.0, self._drawing.drafter.steps_per_token))
        drawn = self._drawing.roll_out(text, steps)
        if not drawn:
            return self._drawing.nothing
        columns = to_host(torch.cat([column for column, _ in drawn]))
        tokens = list(chain.from_iterable(map(self._push_forward.segments.__getitem__, columns)))[:lookahead]
        psi = None
        if self._drawing.uses_psi:
            psi = torch.stack(list(islice(self._psi(columns, [weights for _, weights in drawn]), lookahead)))
        device = self._drawing.target_device
        return Draft(upload(tokens, device), psi, self._drawing.name).to(device)

    def _psi(self, columns: Sequence[int], weights: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Of each token of the segments, ``[V]``."""
        firsts = self._push_forward.first.psi(torch.stack(weights))  # type: ignore[arg-type]
        for first, row, column in zip(firsts, weights, columns, strict=True):
            yield first
            yield from self._push_forward.following(row, column)
