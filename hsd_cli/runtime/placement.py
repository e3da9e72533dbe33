"""Models that are not whole in this process, on one device: in parts on several, or shared out over several processes.

The library's own passes know how to run these: what a part reads is sent to it, or the part is fetched. All that works
with the weights directly leaves such models alone.
"""

from __future__ import annotations

from importlib.util import find_spec
from math import gcd
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from hsd_cli.errors import HsdError, UsageError

FETCHED = ("cpu", "disk")  # from where accelerate fetches parts, if there is a GPU to run them


def in_parts(device_map: str | dict[str, Any]) -> dict[str, Any]:
    """What the library is told: ``auto``, or the device of each part by its name.

    Raises ``UsageError`` where the package that does it is missing.
    """
    _need_accelerate("--device-map")
    return {"device_map": device_map}


def shared_out(name: str, config: PreTrainedConfig, processes: int) -> dict[str, Any]:
    """What the library is told for each of ``processes`` to keep its share of every matrix.

    Raises ``HsdError`` for a model that cannot be shared out among that many.
    """
    _need_accelerate("--tensor-parallel")
    text_config = config.get_text_config(decoder=True)
    if not getattr(text_config, "base_model_tp_plan", None):
        raise HsdError(f"transformers cannot share out a {config.model_type} model; try --device-map auto")
    heads = text_config.num_attention_heads
    shared = getattr(text_config, "num_key_value_heads", None) or heads
    if heads % processes or shared % processes:
        most = gcd(heads, shared)
        possible = " or ".join(str(number) for number in range(2, most + 1) if most % number == 0)
        raise HsdError(
            f"{processes} processes cannot share the {heads} attention heads and {shared} key-value heads of {name!r}; "
            + (f"{possible} can" if possible else "try --device-map auto")
        )
    try:
        from transformers.distributed.configuration_utils import DistributedConfig

        return {"distributed_config": DistributedConfig(tp_size=processes)}
    except (ImportError, TypeError) as error:
        raise HsdError("this transformers is too old for --tensor-parallel; pip install -U transformers") from error


def is_whole(model: PreTrainedModel) -> bool:
    """Whether all of it is in this process, on one device."""
    return not _is_in_parts(model) and getattr(model, "tp_size", None) in (None, 1)


def input_device(model: PreTrainedModel) -> torch.device:
    """Where tokens go in and logits come out. A part that is fetched when it is needed runs on the first GPU."""
    if not _is_in_parts(model):
        return model.device
    accelerators = [device for device in _device_map(model).values() if device not in FETCHED]
    return torch.device(accelerators[0] if accelerators else "cpu")


def devices_of(model: PreTrainedModel) -> str:
    """In words, for people."""
    places = dict.fromkeys(str(device) for device in _device_map(model).values())
    return " + ".join(places) if _is_in_parts(model) else str(model.device)


def _is_in_parts(model: PreTrainedModel) -> bool:
    places = set(_device_map(model).values())
    return len(places) > 1 or "disk" in places


def _device_map(model: PreTrainedModel) -> dict[str, Any]:
    """Left by accelerate on the models that it has put its hooks into."""
    return getattr(model, "hf_device_map", {})


def _need_accelerate(option: str) -> None:
    if find_spec("accelerate") is None:
        raise UsageError(f"{option} needs accelerate: pip install 'hsd-cli[multi]'")
