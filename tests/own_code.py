"""Checkpoints that bring the Python code of their model along, as people publish them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from tests.cli import LETTERS

CONFIGURATION = """
from transformers import PreTrainedConfig


class EchoConfig(PreTrainedConfig):
    model_type = "echo"

    def __init__(self, vocab_size=28, width=16, num_hidden_layers=2, **rest):
        self.vocab_size, self.width, self.num_hidden_layers = vocab_size, width, num_hidden_layers
        super().__init__(**rest)
"""
LAYER = """
import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, width, index):
        super().__init__()
        self.index = index
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, states, cache):
        keys, values = (part(states)[:, None] for part in (self.key, self.value))
        if cache is not None:
            keys, values = cache.update(keys, values, self.index)
        seen, new = keys.shape[2], states.shape[1]
        mask = torch.ones(new, seen, dtype=torch.bool, device=states.device).tril(seen - new)
        attended = nn.functional.scaled_dot_product_attention(self.query(states)[:, None], keys, values, attn_mask=mask)
        return states + attended[:, 0]
"""
MODEL = """
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_echo import EchoConfig
from .layer import Layer


class EchoForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = EchoConfig

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Layer(config.width, index) for index in range(config.num_hidden_layers))
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, past_key_values=None, **rest):
        states = self.embeddings(input_ids)
        for layer in self.layers:
            states = layer(states, past_key_values)
        return CausalLMOutputWithPast(logits=self.head(states), past_key_values=past_key_values)
"""
TOKENIZER = """
from transformers import PreTrainedTokenizerFast


class EchoTokenizer(PreTrainedTokenizerFast):
    pass
"""
FILES = {
    "configuration_echo.py": CONFIGURATION,
    "layer.py": LAYER,
    "modeling_echo.py": MODEL,
    "tokenization_echo.py": TOKENIZER,
}
WIDTH = 16
SEED = 30  # of a text with many different letters


def echo_checkpoint(folder: Path, noise: float = 0.0) -> str:
    """A random model that no library knows, with a tokenizer class of its own. Returns the folder's name.

    ``noise`` makes it another one that mostly agrees.
    """
    folder.mkdir()
    names = ["<unk>", *LETTERS]
    for name, text in FILES.items():
        (folder / name).write_text(text)
    # The library keeps the first model class that it sees for a class of configurations.
    (folder / "configuration_echo.py").write_text(f"{CONFIGURATION}\n# {folder}\n")
    config = {
        "model_type": "echo",
        "architectures": ["EchoForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_echo.EchoConfig",
            "AutoModelForCausalLM": "modeling_echo.EchoForCausalLM",
        },
        "vocab_size": len(names),
        "width": WIDTH,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_weights(len(names), noise), folder / "model.safetensors", {"format": "pt"})
    tokenizer = Tokenizer(models.Unigram([(name, -1.0) for name in names], unk_id=0, byte_fallback=False))
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    classes = {"AutoTokenizer": [None, "tokenization_echo.EchoTokenizer"]}
    settings = json.loads(path.read_text()) | {"tokenizer_class": "EchoTokenizer", "auto_map": classes}
    path.write_text(json.dumps(settings))
    return str(folder)


def _weights(tokens: int, noise: float) -> dict[str, torch.Tensor]:
    sizes: dict[str, tuple[int, ...]] = {"embeddings.weight": (tokens, WIDTH)}
    for layer in range(2):
        for part in ("query", "key", "value"):
            sizes |= {f"layers.{layer}.{part}.weight": (WIDTH, WIDTH), f"layers.{layer}.{part}.bias": (WIDTH,)}
    sizes["head.weight"] = (tokens, WIDTH)
    numbers, others = torch.Generator().manual_seed(SEED), torch.Generator().manual_seed(1)
    weights = {}
    for name, size in sizes.items():
        scale = 0.5 if name.startswith("layers") else 1.0
        own = torch.randn(size, generator=numbers) + noise * torch.randn(size, generator=others)
        weights[name] = scale * own
    return weights
