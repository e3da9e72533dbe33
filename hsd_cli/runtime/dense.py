"""The forward pass of plain dense decoders (Llama, Mistral, Qwen 2 and 3) without the library's work around each call.

The arithmetic is the library's own. What is left out is what it does again at every pass: masks for one token, rotary
angles, checks of the cache, a dozen Python calls per layer; and projections of the same input are one product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from hsd_cli.runtime.cache import RollbackCache
from hsd_cli.runtime.packing import PackedLinear, PackedPart, in_columns
from hsd_cli.runtime.placement import is_whole

DENSE = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
CHANGING_ROPE = ("dynamic", "longrope")  # angles that depend on how long the text is
FIRST_ANGLES = 2048  # positions
PROBE = 8  # tokens
FEW = 32  # tokens per pass: a draft to verify, not a prompt

Map = Callable[[torch.Tensor], torch.Tensor]  # a linear one
# From a layer's number, and its queries ``[k, heads, head_dim]``, keys and values (of fewer heads) to what the tokens
# see, ``[k, heads * head_dim]``.
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Layer:
    """The weights of one layer; queries, keys and values come of one map, gate and up of another."""

    before: torch.Tensor
    attention: Map
    norms: tuple[torch.Tensor, torch.Tensor] | None
    output: Map
    between: torch.Tensor
    gate_up: Map
    down: Map


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

    ``mask``: which positions each token sees, bool ``[count, end]``; for few tokens what ``row_mask`` makes of that.
    ``None`` where it is all of them, or at the beginning of a text those before it.
    """

    count: int
    mask: torch.Tensor | None
    caches: Sequence[Any]


class DenseDecoder:
    """Reads tokens with the weights of ``model``, which it shares with it, and with caches of their own."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._head_dim = model.model.layers[0].self_attn.head_dim
        self._epsilon: float = config.rms_norm_eps
        self._eps = torch.tensor(self._epsilon)
        self._embeddings = model.model.embed_tokens.weight
        self._norm = model.model.norm.weight
        self._head = _joined(model, ["lm_head"])
        self._rotary = model.model.rotary_emb
        self._layers = [_layer(layer) for layer in model.model.layers]
        self._cos = self._sin = torch.empty(0)

    @property
    def depth(self) -> int:
        """The number of layers."""
        return len(self._layers)

    def no_memory(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's keys and values, of no texts: ``[0, kv_heads, 0, head_dim]``."""
        empty = self._embeddings.new_empty(0, self._kv_heads, 0, self._head_dim)
        return empty, empty

    @property
    def device(self) -> torch.device:
        return self._embeddings.device  # type: ignore[no-any-return]

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
        tables = self.angles(max(reading.end for reading in readings))
        cos, sin = (torch.cat([table[each.start : each.end] for each in readings]) for table in tables)
        shares = [Share(each.count, self._mask(each.start, each.count), each.cache.layers) for each in readings]
        states = self.states(torch.cat([each.ids for each in readings]), (cos, sin), partial(self.attend, shares))
        parts = states.split([share.count for share in shares])
        kept = torch.cat([part[-each.keep :] for part, each in zip(parts, readings, strict=True)])
        return list(self.predict(kept).split([each.keep for each in readings]))

    def predict(self, states: torch.Tensor) -> torch.Tensor:
        """Logits ``[k, vocabulary_size]``, of ``states`` as the last layer leaves them."""
        return self._head(self._normed(states, self._norm))

    def states(self, ids: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], attend: Attend) -> torch.Tensor:
        """What the last layer makes of ``ids`` (int64 ``[k]``), ``[k, hidden_size]``; ``angles`` say where in their
        texts they are, and ``attend`` knows the texts."""
        hidden = F.embedding(ids, self._embeddings)
        for number, layer in enumerate(self._layers):
            query, key, value = self._projected(layer, hidden, angles)
            hidden = self._combined(layer, hidden, attend(number, query, key, value))
        return hidden

    def _projected(
        self, layer: Layer, hidden: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What comes before attention: queries ``[k, heads, head_dim]``, and keys and values of fewer heads."""
        cos, sin = angles
        states = layer.attention(self._normed(hidden, layer.before))
        states = states.view(len(hidden), self._heads + 2 * self._kv_heads, self._head_dim)
        rotating, value = states.split([self._heads + self._kv_heads, self._kv_heads], 1)
        if layer.norms is not None:
            query, key = rotating.split([self._heads, self._kv_heads], 1)
            rotating = torch.cat([self._normed(query, layer.norms[0]), self._normed(key, layer.norms[1])], 1)
        rotating = rotating * cos + rotating.roll(self._head_dim // 2, -1) * sin
        query, key = rotating.split([self._heads, self._kv_heads], 1)
        return query, key, value

    def _combined(self, layer: Layer, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """What comes after it, ``[k, hidden_size]``."""
        hidden = hidden + layer.output(attended)
        gate, up = layer.gate_up(self._normed(hidden, layer.between)).chunk(2, -1)
        return hidden + layer.down(F.silu(gate) * up)

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
        keys, values = share.caches[number].update(key.transpose(0, 1)[None], value.transpose(0, 1)[None])
        if share.count <= FEW:
            return self.attend_as_rows(query[None], keys, values, share.mask)
        return self._attend(query, keys, values, share.mask)

    def _mask(self, start: int, count: int) -> torch.Tensor | None:
        """As ``Share`` has it."""
        if count == 1 or (start == 0 and count > FEW):
            return None
        mask = torch.ones(count, start + count, dtype=torch.bool, device=self._embeddings.device).tril(start)
        return self.row_mask(mask) if count <= FEW else mask

    def row_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """``mask`` (bool ``[..., k, n]``) for few tokens: once for each head of those that share keys, and as what is
        added to the scores, since every layer would make that of it anew."""
        added = torch.zeros_like(mask, dtype=self._embeddings.dtype).masked_fill_(~mask, -torch.inf)
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
        attended = F.scaled_dot_product_attention(
            rows.reshape(texts, self._kv_heads, -1, self._head_dim), keys, values, mask
        )
        return attended.view(texts, self._heads, count, self._head_dim).transpose(1, 2).reshape(texts * count, -1)

    def _normed(self, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if states.is_cuda:
            return F.rms_norm(states, weight.shape, weight, self._epsilon)
        # There is no such kernel for a CPU, and what stands in for it takes more steps than these.
        wide = states.float()
        squares = (wide * wide).sum(-1, keepdim=True)
        scale = torch.add(self._eps, squares, alpha=1 / len(weight)).rsqrt_()
        return weight * (wide * scale).to(states.dtype)

    def angles(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines for at least the first ``count`` positions, ``[positions, 1, head_dim]``; the sines have
        the sign of the half they go to."""
        if count > len(self._cos):
            room = torch.arange(max(FIRST_ANGLES, 2 * count), device=self._embeddings.device)
            cos, sin = self._rotary(self._embeddings, room[None])
            half = self._head_dim // 2
            self._cos = cos[0, :, None]
            self._sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)[:, None]
        return self._cos, self._sin


def _layer(layer: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    has_norms = hasattr(attention, "q_norm")
    return Layer(
        layer.input_layernorm.weight,
        _joined(attention, ["q_proj", "k_proj", "v_proj"]),
        (attention.q_norm.weight, attention.k_norm.weight) if has_norms else None,
        _joined(attention, ["o_proj"]),
        layer.post_attention_layernorm.weight,
        _joined(mlp, ["gate_proj", "up_proj"]),
        _joined(mlp, ["down_proj"]),
    )


def _joined(module: nn.Module, names: Sequence[str]) -> Map:
    """One map that does what the maps of ``module`` called ``names`` do with the same input. Their weights become parts
    of its own: nothing is kept twice, and nothing changes for them."""
    maps = [getattr(module, name) for name in names]
    packed = any(isinstance(each, PackedLinear) for each in maps)
    if len(maps) == 1:
        return maps[0].forward if packed else partial(F.linear, weight=maps[0].weight, bias=maps[0].bias)
    sizes = [each.out_features for each in maps]
    weight = torch.cat([each.weight.detach().to_dense() for each in maps])
    if weight.device.type == "cpu":
        weight = in_columns(weight)
    bias = None if maps[0].bias is None else torch.cat([each.bias.detach() for each in maps])
    if packed:
        whole, first = PackedLinear(weight, bias), 0
        for name, size in zip(names, sizes, strict=True):
            setattr(module, name, PackedPart(whole, first, size))
            first += size
        return whole.forward
    for each, part in zip(maps, weight.split(sizes), strict=True):
        each.weight.data = part
    return partial(F.linear, weight=weight, bias=bias)


_decoders: WeakKeyDictionary[PreTrainedModel, DenseDecoder | None] = WeakKeyDictionary()


def dense_decoder(model: PreTrainedModel, cache: RollbackCache) -> DenseDecoder | None:
    """One decoder for each model, ``None`` for those that are not plain and dense.

    ``cache`` is empty, and will be. The library's own pass is compared once, so that a model that has become another
    thing in a later version of the library is left to the library.
    """
    if model not in _decoders:
        _decoders[model] = _checked(model, cache) if _is_dense(model) else None
    return _decoders[model]


def _is_dense(model: PreTrainedModel) -> bool:
    config = model.config
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    return (
        type(model) in DENSE
        and is_whole(model)
        and model.device.type in ("cpu", "cuda")
        and config.hidden_act == "silu"
        and config._attn_implementation == "sdpa"
        and set(layers) == {"full_attention"}
        and (type(model) is not MistralForCausalLM or config.sliding_window is None)
        and config.rope_parameters.get("rope_type") not in CHANGING_ROPE
        and all(
            # Quantized weights are of other classes.
            type(part) is PackedLinear or (type(part) is nn.Linear and type(part.weight) is nn.Parameter)
            for part in model.modules()
            if hasattr(part, "out_features")
        )
    )


@torch.inference_mode()
def _checked(model: PreTrainedModel, cache: RollbackCache) -> DenseDecoder | None:
    probe = torch.arange(PROBE, device=model.device) * model.config.vocab_size // PROBE
    expected = model(input_ids=probe[None], use_cache=False).logits[0]
    decoder = DenseDecoder(model)
    [found] = decoder.logits([Reading(probe, cache, 0, PROBE)])
    cache.rollback(0)
    alike = (found - expected).std() <= torch.finfo(found.dtype).eps ** 0.5 * expected.std()
    return decoder if alike else None
