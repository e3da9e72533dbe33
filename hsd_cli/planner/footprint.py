"""What a model takes, counted from its configuration alone: no weights are read, downloaded or allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hsd_cli.errors import HsdError
from hsd_cli.models.failures import explain_failure
from hsd_cli.models.locate import model_source
from hsd_cli.runtime.cache import RollbackCache, RollbackLayer
from hsd_cli.runtime.context import context_size_of
from hsd_cli.runtime.loading import model_class
from hsd_cli.runtime.model import cache_argument
from hsd_cli.runtime.quantization import BYTES_PER_WEIGHT
from hsd_cli.runtime.recurrent import SNAPSHOTS

# What configurations call the experts of a layer, and how many of them read one token.
ALL_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
EXPERTS_PER_TOKEN = ("num_experts_per_tok", "top_k_experts", "moe_top_k", "moe_k")


@dataclass(frozen=True)
class Footprint:
    """Sizes in numbers, whatever their dtype; ``context_size`` in tokens.

    ``read_per_token``: the weights that a forward pass over one token reads. Embeddings are looked up, so they do not
    count, unless the head uses the same matrix; of the experts only those that are chosen count.
    ``quantizable``: those of them that ``--quant`` makes smaller, the linear maps but for the head.
    ``cache_per_token``: keys and values. ``state``: what recurrent layers hold, however long the text, and the
    snapshots that rolling back needs. ``unknown`` says in words what could not be told.
    """

    architecture: str
    layers: int
    parameters: int
    read_per_token: int
    cache_per_token: int
    context_size: int
    unknown: str | None = None
    quantizable: int = 0
    state: int = 0

    def cache(self, length: int) -> int:
        """What reading ``length`` tokens leaves in memory."""
        return self.cache_per_token * length + self.state

    def weight_bytes(self, numbers: int, dtype: torch.dtype, quantization: str | None) -> float:
        """What ``numbers`` weights take of which ``quantizable`` are quantized: all of them, or those read."""
        if quantization is None:
            return numbers * dtype.itemsize
        plain = numbers - self.quantizable
        return plain * dtype.itemsize + self.quantizable * BYTES_PER_WEIGHT[quantization]


def read_footprint(name: str, trust_remote_code: bool = False) -> Footprint:
    """Raises ``HsdError`` for what is no causal language model, or one whose state cannot be rolled back."""
    config = _configuration(name, trust_remote_code)
    loader = model_class(name, config)
    try:
        with torch.device("meta"):  # shapes without memory
            model = loader.from_config(
                config,
                dtype=torch.bfloat16,
                # The experts' other implementations depend on the data or on the dtype.
                experts_implementation="batched_mm",
                trust_remote_code=trust_remote_code,
            )
        return _count(config, model)
    except HsdError as error:
        raise HsdError(f"{name!r}: {error}") from error
    except Exception as error:  # numbers that make no model, in whatever way its code stumbles over them
        raise HsdError(f"the configuration of {name!r} describes no model that can run on text ({error!r})") from error


def _count(config: PreTrainedConfig, model: PreTrainedModel) -> Footprint:
    text_config = config.get_text_config(decoder=True)
    cache = RollbackCache(text_config, capacity=1)
    with torch.inference_mode():
        ids = torch.zeros(1, 1, dtype=torch.int64, device="meta")
        model(input_ids=ids, use_cache=True, **{cache_argument(model): cache})
    if not cache.holds(1):
        raise HsdError(f"{config.model_type} does not use the cache it is given; it is not supported")
    share = _share_of_experts(text_config)
    weights = list(_read_weights(model))
    return Footprint(
        architecture=config.model_type,
        layers=text_config.num_hidden_layers,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        read_per_token=round(sum(weight.numel() * (share or 1 if expert else 1) for weight, expert in weights)),
        cache_per_token=_numbers(cache),
        state=(1 + SNAPSHOTS) * sum(state.numel() for state in cache.recurrent_states),
        context_size=context_size_of(text_config),
        quantizable=_quantizable(model),
        unknown=_unknown(config, share is None and any(expert for _, expert in weights)),
    )


def _configuration(name: str, trust_remote_code: bool) -> PreTrainedConfig:
    transformers.utils.logging.set_verbosity_error()
    source = model_source(name, trust_remote_code)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)  # type: ignore[no-any-return]
    except Exception as error:  # the library reports missing, foreign and damaged files in many ways
        raise explain_failure(name, "configuration", error) from error


def _unknown(config: PreTrainedConfig, vague_experts: bool) -> str | None:
    if getattr(config, "quantization_config", None):
        return "quantised: counted as if unpacked"
    return "how many experts read a token: all of them are counted" if vague_experts else None


def _read_weights(model: PreTrainedModel) -> Iterator[tuple[nn.Parameter, bool]]:
    """Every weight that text goes through, once, and whether it belongs to experts that a router chooses from."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    looked_up = {
        parameter
        for module in decoder.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    in_head = set(head.parameters())
    for name, parameter in decoder.named_parameters():
        if parameter not in looked_up and parameter not in in_head:
            yield parameter, "experts" in name.split(".")
    yield from ((parameter, False) for parameter in in_head)


def _quantizable(model: PreTrainedModel) -> int:
    head = model.get_output_embeddings()
    return sum(
        module.weight.numel()
        for module in model.get_decoder().modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    )


def _share_of_experts(config: PreTrainedConfig) -> float | None:
    """The experts that read one token as a fraction of all, if the configuration tells."""
    every, chosen = (
        next((value for name in names if isinstance(value := getattr(config, name, None), int) and value > 0), None)
        for names in (ALL_EXPERTS, EXPERTS_PER_TOKEN)
    )
    return None if every is None or chosen is None else chosen / every


def _numbers(cache: RollbackCache) -> int:
    """What the layers hold; some reuse another layer's keys and values."""
    layers = [layer for layer in cache.layers if isinstance(layer, RollbackLayer) and layer.is_initialized]
    return sum(states.numel() for layer in layers for states in (layer.keys, layer.values) if states is not None)
