"""The weights of a decoder as the lean pass reads them, and where each family of the library's models has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    Gemma2Model,
    Gemma3TextModel,
    GemmaModel,
    GraniteModel,
    LlamaModel,
    MistralModel,
    MixtralModel,
    Olmo2Model,
    Olmo3Model,
    Phi3Model,
    PreTrainedModel,
    Qwen2Model,
    Qwen3Model,
    Qwen3MoeModel,
    SeedOssModel,
    SmolLM3Model,
)

from hsd_cli.runtime.cache import RollbackCache, RollbackLayer
from hsd_cli.runtime.context import context_size_of, ropes_of
from hsd_cli.runtime.packing import PackedLinear, PackedPart, fastest_layout, in_columns, lay_out

CHANGING_ROPE = ("dynamic", "longrope")

Map = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: dict[str, Map] = {"silu": F.silu, "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh")}


@dataclass(frozen=True)
class GatedMaps:
    """What follows attention; gate and up come of one map."""

    gate_up: Map
    activation: Map
    down: Map

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(states).chunk(2, -1)
        return self.down(self.activation(gate) * up)


@dataclass(frozen=True)
class Layer:
    """The weights of one layer; queries, keys and values come of one map.

    Norms are of what attention reads (``before``) and of what it adds (``behind``), likewise of the maps that follow
    (``between``, ``after``), and of queries and keys (``norms``): of each head, or of all together. ``None``: there is
    none. The states are multiplied in the dtype of a norm's weight.
    """

    before: torch.Tensor | None
    attention: Map
    norms: tuple[torch.Tensor, torch.Tensor] | None
    rotary: str | None  # which angles queries and keys are turned by
    output: Map
    behind: torch.Tensor | None
    between: torch.Tensor | None
    maps: Map
    after: torch.Tensor | None


@dataclass(frozen=True)
class Stack:
    """All of a decoder. Attention's scores are multiplied by ``scale``, and stay below ``softcap`` if there is one."""

    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float
    embeddings: torch.Tensor
    embedding_scale: float
    layers: Sequence[Layer]
    windows: Sequence[int | None]  # of each layer; ``None``: it sees everything
    scale: float
    softcap: float | None
    norm: torch.Tensor
    head: Map
    rotary: nn.Module
    longest: int | None  # positions; if a text were longer, all angles were others


def _as_it_is(weight: torch.Tensor) -> torch.Tensor:
    return weight


def _one_more(weight: torch.Tensor) -> torch.Tensor:
    """Kept as the difference from one. The sum is rounded no more than in the library, which makes it each time."""
    return 1.0 + weight.detach().float()


def _wide(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().float()


@dataclass(frozen=True)
class Family:
    """What a layer of the library's calls the parts of ``Layer``, and what its norms multiply by."""

    attention: Sequence[str] = ("q_proj", "k_proj", "v_proj")
    gate_up: Sequence[str] = ("gate_proj", "up_proj")
    before: str | None = "input_layernorm"
    behind: str | None = None
    between: str | None = "post_attention_layernorm"
    after: str | None = None
    norm: Callable[[torch.Tensor], torch.Tensor] = _as_it_is


LLAMA = Family()
SANDWICH = Family(
    behind="post_attention_layernorm",
    between="pre_feedforward_layernorm",
    after="post_feedforward_layernorm",
    norm=_one_more,
)
BEHIND = Family(
    before=None, behind="post_attention_layernorm", between=None, after="post_feedforward_layernorm", norm=_wide
)
FAMILIES: dict[type[PreTrainedModel], Family] = {
    LlamaModel: LLAMA,
    MistralModel: LLAMA,
    MixtralModel: LLAMA,
    Qwen2Model: LLAMA,
    Qwen3Model: LLAMA,
    Qwen3MoeModel: LLAMA,
    SmolLM3Model: LLAMA,
    GraniteModel: LLAMA,
    SeedOssModel: LLAMA,
    Phi3Model: Family(attention=["qkv_proj"], gate_up=["gate_up_proj"]),
    GemmaModel: Family(norm=_one_more),
    Gemma2Model: SANDWICH,
    Gemma3TextModel: SANDWICH,
    Olmo2Model: BEHIND,
    Olmo3Model: BEHIND,
}


def body_of(model: Any) -> PreTrainedModel | None:
    """What is between the ids and the head of ``model``, if that is of one of ``FAMILIES``. Of models that see or hear,
    too, it is the part that reads text."""
    body = getattr(model, "model", None)
    body = getattr(body, "language_model", body)
    return body if type(body) in FAMILIES and isinstance(getattr(model, "lm_head", None), nn.Module) else None


def capped(numbers: torch.Tensor, softcap: float) -> torch.Tensor:
    return torch.tanh(numbers / softcap) * softcap


def activation_of(config: Any) -> Map | None:
    return ACTIVATIONS.get(getattr(config, "hidden_activation", None) or config.hidden_act)


def stack_of(model: Any) -> Stack:
    """The weights of ``model``, which has a body."""
    body: Any = body_of(model)
    config, family = body.config, FAMILIES[type(body)]
    attention = body.layers[0].self_attn
    changing = any(rope["rope_type"] in CHANGING_ROPE for rope in ropes_of(config))
    return Stack(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        epsilon=config.rms_norm_eps,
        embeddings=body.embed_tokens.weight,
        embedding_scale=_embedding_scale(body),
        layers=[_layer(family, layer, config, number) for number, layer in enumerate(body.layers)],
        windows=[layer.window for layer in RollbackCache(config, 0).layers if isinstance(layer, RollbackLayer)],
        scale=attention.scaling,
        softcap=getattr(config, "attn_logit_softcapping", None),
        norm=family.norm(body.norm.weight),
        head=_head(model, config),
        rotary=body.rotary_emb,
        longest=context_size_of(config) if changing else None,
    )


def _head(model: Any, config: Any) -> Map:
    logits = _times(_joined(model, ["lm_head"]), 1 / getattr(config, "logits_scaling", 1))
    softcap = getattr(config, "final_logit_softcapping", None)
    return logits if softcap is None else lambda states: capped(logits(states), softcap)


def _embedding_scale(body: Any) -> float:
    embeddings = body.embed_tokens
    if hasattr(embeddings, "embed_scale"):
        return float(embeddings.embed_scale.to(embeddings.weight.dtype))
    return float(getattr(body, "embedding_multiplier", 1))


def _layer(family: Family, layer: Any, config: Any, number: int) -> Layer:
    attention = layer.self_attn

    def norm(name: str | None) -> torch.Tensor | None:
        return None if name is None else family.norm(getattr(layer, name).weight)

    factor = getattr(layer, "residual_multiplier", 1)
    has_norms = hasattr(attention, "q_norm")
    return Layer(
        before=norm(family.before),
        attention=_joined(attention, family.attention),
        norms=(family.norm(attention.q_norm.weight), family.norm(attention.k_norm.weight)) if has_norms else None,
        rotary=_rotary(attention, config, number),
        output=_times(_joined(attention, ["o_proj"]), factor),
        behind=norm(family.behind),
        between=norm(family.between),
        maps=_times(_maps(family, layer.mlp, config), factor),
        after=norm(family.after),
    )


def _maps(family: Family, maps: Any, config: Any) -> Map:
    if hasattr(maps, "experts"):
        return lambda states: maps(states[None])[0]
    activation = activation_of(config)
    assert activation is not None
    return GatedMaps(_joined(maps, family.gate_up), activation, _joined(maps, ["down_proj"]))


def _rotary(attention: Any, config: Any, number: int) -> str | None:
    if not getattr(attention, "use_rope", True):
        return None
    return "" if "rope_type" in config.rope_parameters else config.layer_types[number]


def _times(linear: Map, factor: float) -> Map:
    return linear if factor == 1 else lambda states: linear(states) * factor


def _joined(module: nn.Module, names: Sequence[str]) -> Map:
    """One map that does what the maps of ``module`` called ``names`` do with the same input, laid out for the
    processor. Their weights become parts of its own: nothing is kept twice, and nothing changes for them."""
    if len(names) == 1:
        lay_out(module, names[0])
        only = getattr(module, names[0])
        return only.forward if isinstance(only, PackedLinear) else partial(F.linear, weight=only.weight, bias=only.bias)
    maps = [getattr(module, name) for name in names]
    sizes = [each.out_features for each in maps]
    weight = torch.cat([each.weight.detach().to_dense() for each in maps])
    bias = None if maps[0].bias is None else torch.cat([each.bias.detach() for each in maps])
    layout = "packed" if isinstance(maps[0], PackedLinear) else fastest_layout(weight)
    if layout == "packed":
        whole, first = PackedLinear(weight, bias), 0
        for name, size in zip(names, sizes, strict=True):
            setattr(module, name, PackedPart(whole, first, size))
            first += size
        return whole.forward
    if layout == "columns":
        weight = in_columns(weight)
    for each, part in zip(maps, weight.split(sizes), strict=True):
        each.weight.data = part
    return partial(F.linear, weight=weight, bias=bias)
