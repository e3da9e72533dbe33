"""Adapters of PEFT, LoRA above all: changes to a model, which are no model by themselves."""

from __future__ import annotations

import json
from pathlib import Path

from hsd_cli.errors import HsdError

ADAPTER_CONFIG = "adapter_config.json"


def has_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG).is_file()


def not_a_model(name: str, folder: Path) -> HsdError:
    """For an adapter in the place of a model: of which, and how to make one of the two."""
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_bytes())
        kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        kind = base = None
    what = "a LoRA adapter" if kind == "LORA" else "an adapter"
    return HsdError(f"{name!r} is {what} of {base or 'another model'!r}, not a model by itself; {merging()}")


def merging() -> str:
    """What to do with an adapter."""
    return (
        "merge the two, with AutoPeftModelForCausalLM.from_pretrained(ADAPTER).merge_and_unload() of the library peft, "
        "save the result with the tokenizer, and give that folder"
    )
