"""A trained model in a wider and deeper one that says the same: real acceptance at the cost of a larger model.

``python -m benchmarks.widen embedded:target FOLDER --hidden 896 --intermediate 4864 --layers 24``: the added
channels are always zero, the added heads are not listened to, the added layers add nothing. For Llama models.
"""

from __future__ import annotations

import shutil
from argparse import ArgumentParser
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from hsd_cli.models.locate import model_source


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    for name, least in (("hidden", 896), ("intermediate", 4864), ("layers", 24)):
        parser.add_argument(f"--{name}", type=int, default=least)
    options = parser.parse_args()
    source = Path(model_source(options.model))
    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32)
    widened(model, options.hidden, options.intermediate, options.layers).save_pretrained(options.folder)
    for file in source.glob("token*"):
        shutil.copy(file, options.folder)


@torch.no_grad()
def widened(model: LlamaForCausalLM, hidden: int, intermediate: int, layers: int) -> LlamaForCausalLM:
    """``hidden`` is a multiple of what a group of the model's heads has; keys and values grow with the queries."""
    config: Any = deepcopy(model.config)
    narrow = config.hidden_size
    group = config.num_attention_heads // config.num_key_value_heads
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = hidden, intermediate, layers
    config.num_attention_heads = hidden // config.head_dim // group * group
    config.num_key_value_heads = config.num_attention_heads // group
    # The mean of squares is over more channels now, all others of them zero.
    config.rms_norm_eps *= narrow / hidden
    torch.manual_seed(0)
    wide = LlamaForCausalLM(config)
    old, new = model.state_dict(), wide.state_dict()
    for name, weights in new.items():
        # What is added to the text's state is zero; whatever else is there may be anything.
        if name.endswith(("o_proj.weight", "down_proj.weight", "embed_tokens.weight", "norm.weight")):
            weights.zero_()
        if name in old:
            part = old[name] * (narrow / hidden) ** 0.5 if "norm" in name else old[name]
            weights[tuple(slice(size) for size in part.shape)] = part
            if weights.ndim == 2 and not name.endswith(("embed_tokens.weight", "lm_head.weight")):
                weights[: part.shape[0], part.shape[1] :] = 0  # of what is read, the old part alone counts
    wide.load_state_dict(new)
    return wide


if __name__ == "__main__":
    main()
