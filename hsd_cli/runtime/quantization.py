"""Linear maps in 8 or 4 bits: bitsandbytes quantizes them while a model is loaded.

What it is asked for treats every token of a pass alike, however many others are read with it, as losslessness needs:
``int8`` is without the library's outlier columns, which are chosen by all the tokens of a pass together.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from itertools import chain
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedConfig

from hsd_cli.errors import HsdError, UsageError

# Bytes that one weight takes. Of 4 bits each block of 64 has a scale in float32.
BYTES_PER_WEIGHT = {"int8": 1.0, "int4": 0.5 + 4 / 64}
DEVICES = ("cuda", "cpu")
LIBRARIES = ("bitsandbytes", "accelerate")


def quantization_config(quantization: str, device: torch.device, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Raises ``HsdError`` where the library is not installed, or does not compute."""
    if quantization not in BYTES_PER_WEIGHT:
        raise UsageError(f"unknown quantization {quantization!r}; use {' or '.join(BYTES_PER_WEIGHT)}")
    if any(find_spec(library) is None for library in LIBRARIES):
        raise HsdError(f"{quantization} needs bitsandbytes; run: pip install 'hsd-cli[quant]'")
    if device.type not in DEVICES:
        raise UsageError(f"{quantization} runs on {' and '.join(DEVICES)}, not on {device}; add --device cpu")
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def quantization_method(config: PreTrainedConfig) -> str | None:
    """By which a checkpoint says that it is quantized already."""
    found = getattr(config, "quantization_config", None)
    if not found:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else found.quant_method
    return str(getattr(method, "value", method))


def without_outlier_columns(config: PreTrainedConfig) -> None:
    """Changes how a checkpoint of bitsandbytes computes, not its weights: see above."""
    config.quantization_config["llm_int8_threshold"] = 0.0


def silence_bitsandbytes() -> None:
    """It tells of kernels that are not installed, and of every conversion."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def stored_bytes(*parts: nn.Module) -> int:
    """Of all weights as they lie in memory, each once, with the scales of those that are quantized."""
    # Some libraries keep weights in buffers.
    return sum(map(weight_bytes, {weights for part in parts for weights in chain(part.parameters(), part.buffers())}))


def weight_bytes(weights: Any) -> int:
    """What ``weights`` take here: of those that several processes share, this one's part."""
    if hasattr(weights, "__tensor_flatten__"):  # a tensor that stands for several
        parts = (getattr(weights, name) for name in weights.__tensor_flatten__()[0])
        return sum(weight_bytes(part) for part in parts if isinstance(part, torch.Tensor))
    size: int = weights.nbytes
    state = getattr(weights, "quant_state", None)
    while state is not None:  # the scales of bitsandbytes; they can be quantized themselves
        size += state.absmax.nbytes
        state = state.state2
    return size
