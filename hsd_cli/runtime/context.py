"""How long a text may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig


def ropes_of(config: PreTrainedConfig) -> list[Mapping[str, Any]]:
    """How positions become angles: one way for all layers, or one for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [rope] if "rope_type" in rope else [each for each in rope.values() if each]


def context_size_of(config: PreTrainedConfig, prompt: int = 0) -> int:
    """Positions up to which a token's keys do not depend on what else its forward pass reads, in a text that begins
    with ``prompt`` tokens."""
    # MPT has the other name, and masks for no more positions than that.
    size: int = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None) or 1 << 30
    switch = switch_of(config)
    return size if switch is None or prompt > switch else min(size, switch)


def switch_of(config: PreTrainedConfig) -> int | None:
    """Positions beyond which a text has other angles everywhere; if it is longer from the start, nothing changes in it.
    ("dynamic" changes with each position past the context, so that there is no text without a change.)"""
    longrope = [rope for rope in ropes_of(config) if rope.get("rope_type") == "longrope"]
    return min((rope.get("original_max_position_embeddings") or 1 << 30 for rope in longrope), default=None)


def why_no_longer(config: PreTrainedConfig, size: int) -> str:
    """What people should know of a context that ends at ``size`` tokens, after a comma, if there is anything."""
    kinds = {rope.get("rope_type") for rope in ropes_of(config)}
    if size == switch_of(config):
        return ", beyond which LongRoPE turns everything before by other angles (prompts that are longer are served)"
    return ", beyond which dynamic RoPE turns everything before by other angles" if "dynamic" in kinds else ""
