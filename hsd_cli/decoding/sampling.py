"""From logits to the distribution that the text is drawn from, by the user's sampling settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.runtime.device import upload
from hsd_cli.runtime.host import to_host


@dataclass(frozen=True)
class Logprobs:
    """What a model thought of one place of a text: natural logarithms, of the token that was written there, and of the
    likeliest ids, in that order."""

    written: float
    likeliest: tuple[tuple[int, float], ...]


class Warper:
    """Applies the settings in the order of transformers' ``generate``, to rows that see different contexts.

    The repetition penalty depends on the tokens so far: it counts those of ``follow``, and row by row the drafted ones.
    With ``logprobs`` it can tell what the model thought before any settings, also of that many of the likeliest tokens.
    """

    def __init__(
        self, settings: SamplingSettings, vocabulary_size: int, device: torch.device, *, logprobs: int | None = None
    ) -> None:
        self._raw: torch.Tensor | None = None
        self._likeliest = None if logprobs is None else min(logprobs, vocabulary_size)
        self._penalty = settings.repetition_penalty
        self._truncation: list[LogitsProcessor] = []
        if not settings.greedy:
            if settings.temperature != 1:
                self._truncation.append(TemperatureLogitsWarper(settings.temperature))
            if settings.top_k > 0:
                self._truncation.append(TopKLogitsWarper(settings.top_k))
            if settings.top_p < 1:
                self._truncation.append(TopPLogitsWarper(settings.top_p))
            if settings.min_p > 0:
                self._truncation.append(MinPLogitsWarper(settings.min_p))
        self._ids: list[int] = []
        self._counts = torch.zeros(vocabulary_size, dtype=torch.int32, device=device)

    def follow(self, ids: Sequence[int], unchanged: int) -> None:
        """The context is now ``ids``, of which the first ``unchanged`` are as they were. Costs the difference only."""
        if self._penalty == 1:
            return
        unchanged = min(unchanged, len(self._ids))
        self._count(self._ids[unchanged:], -1)
        self._count(ids[unchanged:], 1)
        self._ids[unchanged:] = ids[unchanged:]

    def _count(self, ids: Sequence[int], change: int) -> None:
        index = torch.tensor(ids, dtype=torch.int64, device=self._counts.device)
        self._counts.index_add_(0, index, torch.full_like(index, change, dtype=torch.int32))

    def logits(self, logits: torch.Tensor, drafted: torch.Tensor) -> torch.Tensor:
        """Warped logits, float32 ``[k, V]``, for the last ``k`` places of the context and ``drafted`` (``[n]``).

        The place before ``drafted`` counts as one: with ``n = k - 1`` row ``i`` has seen ``drafted[:i]``.
        """
        if self._likeliest is not None:
            self._raw = logits
        return self._truncated(self.penalised(logits, drafted))

    def _truncated(self, scores: torch.Tensor) -> torch.Tensor:
        for warp in self._truncation:
            scores = warp(None, scores)  # these of the library do not look at the ids
        return scores

    def logprobs(self, tokens: Sequence[int]) -> Sequence[Logprobs | None]:
        """The model's own where ``tokens`` were written, one for each of the first rows that were warped last; ``None``
        unless they are kept."""
        if self._raw is None or self._likeliest is None:
            return [None] * len(tokens)
        rows = self._raw[: len(tokens)].float().log_softmax(-1)
        written = rows.gather(1, upload(tokens, rows.device)[:, None])
        values, ids = rows.topk(self._likeliest)
        found = torch.cat([written, values, ids.float()], 1)  # one copy to the host: float32 holds every id
        numbers, width = to_host(found.flatten()), found.shape[1]
        return [_logprobs(*numbers[at : at + width]) for at in range(0, len(numbers), width)]

    def penalised(self, logits: torch.Tensor, drafted: torch.Tensor) -> torch.Tensor:
        """``logits`` after the repetition penalty alone: whoever wants the likeliest token need not sort for the rest.

        Never waits for the device.
        """
        scores = logits.float()
        if self._penalty == 1:
            return scores
        seen = self._seen_after(drafted) <= torch.arange(len(drafted) + 1, device=scores.device)[-len(scores) :, None]
        return torch.where(seen, torch.where(scores < 0, scores * self._penalty, scores / self._penalty), scores)

    def _seen_after(self, drafted: torch.Tensor) -> torch.Tensor:
        """For every token how many of ``drafted`` it takes until the text has it, int32 ``[V]``; else more than all."""
        count, size = len(drafted), len(self._counts)
        places = torch.arange(1, count + 1, dtype=torch.int32, device=drafted.device)
        first = (self._counts == 0).int() * (count + 1)  # not `where`, which copies its numbers to the device
        # A void proposal is past the vocabulary, and no row after it is ever read.
        return first.scatter_reduce(0, drafted.clamp(max=size - 1), places, "amin")

    def probabilities(
        self, logits: torch.Tensor, drafted: torch.Tensor, only: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The distributions that belong to ``logits``, float32 ``[k, V]``; or ``[k, n]`` over the ids ``only`` (int64
        ``[n]``), as if there were no others."""
        scores = self.penalised(logits, drafted)
        return self._truncated(scores if only is None else scores.index_select(1, only)).softmax(-1)


def _logprobs(written: float, *likeliest: float) -> Logprobs:
    """``likeliest`` are values, then as many ids."""
    values, ids = likeliest[: len(likeliest) // 2], likeliest[len(likeliest) // 2 :]
    return Logprobs(written, tuple(zip(map(int, ids), values, strict=True)))
