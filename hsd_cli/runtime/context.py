"""How long a text may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig


def ropes_of(config: PreTrainedConfig) -> list[Mapping[str, Any]]:
    """How positions become angles: one way for all layers, or one for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [rope] if "rope_type" in rope else [each for each in rope.values() if each]


def context_size_of(config: PreTrainedConfig) -> int:
    """Positions up to which a token's keys do not depend on what else its forward pass reads."""
    # MPT has the other name, and masks for no more positions than that.
    size: int = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None) or 1 << 30
    for rope in ropes_of(config):
        # Rescales all positions once a pass goes further than that (as "dynamic" does at the end of the context).
        if rope.get("rope_type") == "longrope":
            size = min(size, rope.get("original_max_position_embeddings") or size)
    return size
