"""Models whose weights are in a GGUF file: unpacked to an ordinary dtype, named and laid out as transformers does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from hsd_cli.errors import HsdError
from hsd_cli.models.gguf import gguf_in
from hsd_cli.models.gguf_header import read_header

ROTARY = "rope_freqs.weight"  # what rotary frequencies are divided by, in Llama 3.1 and later


def load_gguf(
    loader: Any, name: str, folder: str, config: PreTrainedConfig, dtype: torch.dtype, **options: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """As ``loader.from_pretrained`` does, from a folder of ``model_folder``.

    The library's own way reads the whole vocabulary once more, which takes it many seconds, drops what it has no place
    for, and does not quantize. Raises ``HsdError`` for weights that the model has no place for.
    """
    with torch.device("meta"):
        shape = loader.from_config(config)
    weights = _unpacked(name, folder, shape, config, dtype)
    divisors = weights.pop(ROTARY, None)
    model, report = type(shape).from_pretrained(None, config=config, state_dict=weights, dtype=dtype, **options)
    model.generation_config = GenerationConfig.from_pretrained(folder)
    if divisors is not None:
        frequencies = model.get_decoder().rotary_emb.inv_freq
        frequencies /= divisors.to(frequencies.device)
    return model, report


def _unpacked(
    name: str, folder: str, shape: PreTrainedModel, config: PreTrainedConfig, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """All weights by their names in the model, on the CPU, and ``ROTARY`` if the file has it."""
    import gguf
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    file = gguf_in(folder)
    assert file is not None
    header = read_header(file)
    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config=config.to_dict())  # type: ignore[no-untyped-call]
    names = get_gguf_hf_weights_map(shape, processor) | {ROTARY: ROTARY}
    weights: dict[str, torch.Tensor] = {}
    stored = np.memmap(file, mode="c")
    for there, tensor in header.tensors.items():
        rows = stored[tensor.begin : tensor.end].reshape(*tensor.shape[:-1], -1)
        numbers = gguf.dequantize(rows, gguf.GGMLQuantizationType(tensor.kind))
        placed = processor.process(numbers, there, tensor_key_mapping=names, parsed_parameters={"tensors": weights})
        if placed.name in names:
            weights[names[placed.name]] = torch.from_numpy(np.ascontiguousarray(placed.weights)).to(dtype, copy=True)
        elif placed.name is not None:  # else the processor has put it into its place
            raise HsdError(
                f"{name!r} has weights that transformers has no place for ({there}); take the model in its own format"
            )
    return weights
