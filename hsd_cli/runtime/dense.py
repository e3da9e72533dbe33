"""The forward pass of dense decoders (``families``) without the library's work around each call.

The arithmetic is the library's own. What is left out is what it does again at every pass: masks for one token, rotary
angles, checks of the cache, a dozen Python calls per layer; and projections of the same input are one product.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from hsd_cli.runtime.cache import RollbackCache, first_visible
from hsd_cli.runtime.families import Layer, Stack, activation_of, body_of, capped, stack_of
from hsd_cli.runtime.packing import PackedLinear
from hsd_cli.runtime.placement import is_whole

FIRST_ANGLES = 2048  # positions
PROBE = 8  # tokens
FEW = 32  # tokens per pass: a draft to verify, not a prompt

Turn = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, ``[positions, 1, rotary_dim]``
Angles = Mapping[str, Turn]  # by their name in ``Layer.rotary``
# From a layer's number, and its queries ``[k, heads, head_dim]``, keys and values (of fewer heads) to what the tokens
# see, ``[k, heads * head_dim]``.
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Reading:
    """Tokens to be read: ``ids`` (int64 ``[k]``) at the positions from ``start`` on of the text that ``cache`` has.

    Logits are wanted after the last ``keep`` of them.
    """

    ids: torch.Tensor
    cache: RollbackCache
    start: int
    keep: int

    @cached_property
    def end(self) -> int:
        return self.start + self.ids.shape[0]

    @property
    def count(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Share:
    """One text's share of a pass: ``count`` tokens. ``caches`` keep each layer's keys and values: their ``update``
    takes new ones and returns all that are attended to, ``[1, kv_heads, count or all, head_dim]``.

    ``masks``, by the ``window`` of a cache: which of what it returns each token sees, bool ``[count, all]``; for few
    tokens what ``row_mask`` makes of that. ``None`` where it is all of them, or at the beginning of a text those before
    it.
    """

    count: int
    masks: Mapping[int | None, torch.Tensor | None]
    caches: Sequence[Any]


class DenseDecoder:
    """Reads tokens with the weights of ``stack``, and with caches of their own."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._heads, self._kv_heads, self._head_dim = stack.heads, stack.kv_heads, stack.head_dim
        self._eps = torch.tensor(stack.epsilon)
        # There is no kernel for attention with a softcap; in steps it is computed as rows.
        self._few = FEW if stack.softcap is None else sys.maxsize
        self._stretches = False
        self._angles: tuple[int, Angles] = 0, {}  # with for how many positions: threads may read at the same time

    @property
    def depth(self) -> int:
        """The number of layers."""
        return len(self._stack.layers)

    @property
    def windows(self) -> Sequence[int | None]:
        """How many positions each layer sees, ``None`` for all."""
        return self._stack.windows

    def no_memory(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's keys and values, of no texts: ``[0, kv_heads, 0, head_dim]``."""
        empty = self._stack.embeddings.new_empty(0, self._kv_heads, 0, self._head_dim)
        return empty, empty

    @property
    def device(self) -> torch.device:
        return self._stack.embeddings.device

    @cached_property
    def stretched(self) -> DenseDecoder:
        """For texts that are longer than ``Stack.longest`` from the start."""
        other = copy(self)
        other._stretches, other._angles = True, (0, {})
        return other

    def with_maps(self, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> DenseDecoder:
        """One with the same weights, and with what ``change`` makes of the functions before and after attention."""
        other = copy(self)
        for function in (self._projected, self._combined):
            setattr(other, function.__name__, change(function))
        return other

    def logits(self, readings: Sequence[Reading]) -> list[torch.Tensor]:
        """Reads all of ``readings``, each of another text, in one pass; for each its logits,
        ``[keep, vocabulary_size]``.

        The weights are read once for all of them. No text is padded to another's length.
        """
        angles = at(
            self.angles(max(reading.end for reading in readings)),
            lambda table: _joined([table[each.start : each.end] for each in readings]),
        )
        shares = [Share(each.count, self._masks(each), each.cache.layers) for each in readings]
        states = self.states(_joined([each.ids for each in readings]), angles, partial(self.attend, shares))
        parts = states.split([share.count for share in shares])
        kept = _joined([part[-each.keep :] for part, each in zip(parts, readings, strict=True)])
        return list(self.predict(kept).split([each.keep for each in readings]))

    def predict(self, states: torch.Tensor) -> torch.Tensor:
        """Logits ``[k, vocabulary_size]``, of ``states`` as the last layer leaves them."""
        return self._stack.head(self._normed(states, self._stack.norm))

    def states(self, ids: torch.Tensor, angles: Angles, attend: Attend) -> torch.Tensor:
        """What the last layer makes of ``ids`` (int64 ``[k]``), ``[k, hidden_size]``; ``angles`` say where in their
        texts they are, and ``attend`` knows the texts."""
        hidden = F.embedding(ids, self._stack.embeddings)
        if self._stack.embedding_scale != 1:
            hidden = hidden * self._stack.embedding_scale
        for number, layer in enumerate(self._stack.layers):
            turn = None if layer.rotary is None else angles[layer.rotary]
            query, key, value = self._projected(layer, hidden, turn)
            hidden = self._combined(layer, hidden, attend(number, query, key, value))
        return hidden

    def _projected(
        self, layer: Layer, hidden: torch.Tensor, turn: Turn | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What comes before attention: queries ``[k, heads, head_dim]``, and keys and values of fewer heads."""
        states = layer.attention(self._normed(hidden, layer.before))
        states = states.view(-1, self._heads + 2 * self._kv_heads, self._head_dim)
        rotating, value = states.split_with_sizes([self._heads + self._kv_heads, self._kv_heads], 1)
        if layer.norms is not None:
            query, key = rotating.split_with_sizes([self._heads, self._kv_heads], 1)
            rotating = torch.cat(
                [self._heads_normed(query, layer.norms[0]), self._heads_normed(key, layer.norms[1])], 1
            )
        if turn is not None:
            rotating = _turned(rotating, *turn)
        query, key = rotating.split_with_sizes([self._heads, self._kv_heads], 1)
        return query, key, value

    def _combined(self, layer: Layer, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """What comes after it, ``[k, hidden_size]``."""
        hidden = hidden + self._normed(layer.output(attended), layer.behind)
        return hidden + self._normed(layer.maps(self._normed(hidden, layer.between)), layer.after)

    def attend(
        self, shares: Sequence[Share], number: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """What layer ``number`` sees of each text: ``Attend`` for tokens that are ``shares``, one after another."""
        if len(shares) == 1:
            return self._attended_share(number, shares[0], query, key, value)
        counts = [share.count for share in shares]
        parts = zip(shares, query.split(counts), key.split(counts), value.split(counts), strict=True)
        return torch.cat([self._attended_share(number, *part) for part in parts])

    def _attended_share(
        self, number: int, share: Share, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        cache = share.caches[number]
        keys, values = cache.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None])
        mask = share.masks[cache.window]
        if share.count <= self._few:
            return self.attend_as_rows(query[None], keys, values, mask)
        return self._attend(query, keys, values, mask)

    def _masks(self, reading: Reading) -> dict[int | None, torch.Tensor | None]:
        """As ``Share`` has them."""
        return {window: self._mask(reading.start, reading.count, window) for window in reading.cache.windows}

    def _mask(self, start: int, count: int, window: int | None) -> torch.Tensor | None:
        if count == 1 or (start == 0 and self._few < count <= (window or count)):
            return None
        before = start - first_visible(start, window)
        mask = torch.ones(count, before + count, dtype=torch.bool, device=self._stack.embeddings.device).tril(before)
        if window is not None:
            mask = mask.triu(before - window + 1)
        return self.row_mask(mask) if count <= self._few else mask

    def row_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """``mask`` (bool ``[..., k, n]``) for few tokens: once for each head of those that share keys, and as what is
        added to the scores, since every layer would make that of it anew."""
        added = torch.zeros_like(mask, dtype=self._stack.embeddings.dtype).masked_fill_(~mask, -torch.inf)
        return added.repeat(*[1] * (mask.dim() - 2), self._heads // self._kv_heads, 1)

    def _attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """``[k, heads * head_dim]``, of queries ``[k, heads, head_dim]``."""
        attended = F.scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            keys,
            values,
            mask,
            is_causal=mask is None,
            scale=self._stack.scale,
            enable_gqa=self._heads != self._kv_heads,
        )
        return attended[0].transpose(0, 1).reshape(len(query), -1)

    def attend_as_rows(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The same for few tokens of each of some texts, ``[texts * k, heads * head_dim]``, of queries ``[texts, k,
        heads, head_dim]``. Heads that share keys are rows of one product, so that those are read once for all."""
        texts, count = query.shape[:2]
        rows = query.view(texts, count, self._kv_heads, -1, self._head_dim).permute(0, 2, 3, 1, 4)
        rows = rows.reshape(texts, self._kv_heads, -1, self._head_dim)
        scale, softcap = self._stack.scale, self._stack.softcap
        if softcap is None:
            attended = F.scaled_dot_product_attention(rows, keys, values, mask, scale=scale)
        else:
            attended = _capped_attention(rows, keys, values, mask, scale, softcap)
        return attended.view(texts, self._heads, count, self._head_dim).transpose(1, 2).reshape(texts * count, -1)

    def _heads_normed(self, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Each of the heads ``[k, n, head_dim]``, or all of them together, as the weight is."""
        return self._normed(states.view(len(states), -1, len(weight)), weight).view(states.shape)

    def _normed(self, states: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        if weight is None:
            return states
        if states.is_cuda:
            return F.rms_norm(states.type_as(weight), weight.shape, weight, self._stack.epsilon).type_as(states)
        # There is no such kernel for a CPU, and what stands in for it takes more steps than these.
        wide = states.float()
        squares = (wide * wide).sum(-1, keepdim=True)
        scale = torch.add(self._eps, squares, alpha=1 / weight.shape[0]).rsqrt_()
        return (weight * (wide * scale).type_as(weight)).type_as(states)

    def angles(self, count: int) -> Angles:
        """For at least the first ``count`` positions; the sines have the sign of the half they go to."""
        known, angles = self._angles
        if count > known:
            known = max(FIRST_ANGLES, 2 * count)
            kinds = {layer.rotary for layer in self._stack.layers if layer.rotary is not None}
            angles = {kind: self._turn(kind, known) for kind in kinds}
            self._angles = known, angles
        return angles

    def _turn(self, kind: str, count: int) -> Turn:
        embeddings = self._stack.embeddings
        longest = self._stack.longest
        if self._stretches and longest is not None:
            count = max(count, longest + 1)  # which is what changes the angles
        places = torch.arange(count, device=embeddings.device)
        if longest is not None and not self._stretches:
            places.clamp_(max=longest - 1)  # no text gets there, but padding and spare room do
        cos, sin = self._stack.rotary(embeddings, places[None], *([kind] if kind else []))
        half = cos.shape[-1] // 2
        return cos[0, :, None], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)[:, None]


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """One after another, along the first dimension; nothing is copied of a single one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def at(angles: Angles, places: Callable[[torch.Tensor], torch.Tensor]) -> Angles:
    """Those rows of all tables that ``places`` takes of one."""
    return {kind: (places(cos), places(sin)) for kind, (cos, sin) in angles.items()}


def _turned(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """``states`` (``[k, n, head_dim]``) by their angles, which may be for the first part of a head alone."""
    size = cos.shape[-1]
    if size < states.shape[-1]:
        return torch.cat([_turned(states[..., :size], cos, sin), states[..., size:]], -1)
    return (states * cos + states.roll(size // 2, -1) * sin).type_as(states)


def _capped_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    scores = capped(query @ keys.transpose(-1, -2) * scale, softcap)
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ values


_decoders: WeakKeyDictionary[PreTrainedModel, DenseDecoder | None] = WeakKeyDictionary()


def dense_decoder(model: PreTrainedModel) -> DenseDecoder | None:
    """One decoder for each model, ``None`` for those that are of no known family.

    The library's own pass is compared once, so that a model that has become another thing in a later version of the
    library is left to the library.
    """
    if model not in _decoders:
        _decoders[model] = _checked(model) if _is_dense(model) else None
    return _decoders[model]


def _is_dense(model: PreTrainedModel) -> bool:
    body = body_of(model)
    if body is None:
        return False
    config: Any = body.config
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    # For attention with a softcap the library has nothing better, either.
    attention = "sdpa" if getattr(config, "attn_logit_softcapping", None) is None else "eager"
    return (
        is_whole(model)
        and model.device.type in ("cpu", "cuda")
        and activation_of(config) is not None
        and config._attn_implementation == attention
        and set(layers) <= {"full_attention", "sliding_attention"}
        and all(
            # Quantized weights are of other classes.
            type(part) is PackedLinear or (type(part) is nn.Linear and type(part.weight) is nn.Parameter)
            for part in (*body.modules(), model.lm_head)
            if hasattr(part, "out_features")
        )
    )


@torch.inference_mode()
def _checked(model: PreTrainedModel) -> DenseDecoder | None:
    decoder = DenseDecoder(stack_of(model))
    body: Any = body_of(model)
    probe = torch.arange(PROBE, device=model.device) * body.config.vocab_size // PROBE
    text_config = model.config.get_text_config(decoder=True)
    with _narrow_windows(text_config), _narrow_windows(body.config):
        expected = model(input_ids=probe[None], use_cache=False).logits[0]
        [found] = decoder.logits([Reading(probe, RollbackCache(text_config, PROBE), 0, PROBE)])
    alike = (found - expected).std() <= torch.finfo(found.dtype).eps ** 0.5 * expected.std()
    return decoder if alike else None


@contextmanager
def _narrow_windows(config: Any) -> Iterator[None]:
    """Windows that so few tokens do not fit in: whatever reads ``config`` in the meantime has them."""
    window = getattr(config, "sliding_window", None)
    if window is None:
        yield
        return
    config.sliding_window = PROBE // 2
    try:
        yield
    finally:
        config.sliding_window = window
