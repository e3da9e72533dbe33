"""Tiny random models of the architectures that people use, over the 256 bytes."""

from __future__ import annotations

import copy
import json

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from hsd_cli.vocab.vocabulary import Vocabulary

BYTES = 256
SIZES = {
    "vocab_size": BYTES,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    # Tied random embeddings would repeat the last token for ever.
    "tie_word_embeddings": False,
}
WINDOW = 24
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(
        vocab_size=BYTES,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=512,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
    ),
    "gpt-neox": GPTNeoXConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "gemma2": Gemma2Config(**SIZES, head_dim=8, sliding_window=WINDOW),
    "gemma3": Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]
    ),
    "mistral": MistralConfig(**SIZES, sliding_window=WINDOW),
    "phi3": Phi3Config(**SIZES),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
}
# These give all positions other frequencies once a text is longer than RESCALED_FROM.
RESCALED_FROM = 64
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 4.0, 6.0, 8.0],
    "original_max_position_embeddings": RESCALED_FROM,
}
DYNAMIC_ROPE = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
RESCALED: dict[str, PreTrainedConfig] = {
    "phi3 with long rope": Phi3Config(
        **SIZES, rope_parameters=LONG_ROPE, original_max_position_embeddings=RESCALED_FROM
    ),
    "llama with dynamic rope": LlamaConfig(
        **SIZES | {"max_position_embeddings": RESCALED_FROM}, rope_parameters=DYNAMIC_ROPE
    ),
    "gemma3 with long rope in some layers": Gemma3TextConfig(
        **SIZES,
        head_dim=8,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": LONG_ROPE,
        },
    ),
}


def random_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """Weights large enough that greedy text does not settle on one token."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(6)
    return model


def byte_vocabulary(order: list[int] | None = None) -> Vocabulary:
    """One token per byte; ``order[i]`` is the byte of id ``i``."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {characters[byte]: index for index, byte in enumerate(order or range(BYTES))}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return Vocabulary(json.loads(tokenizer.to_str()))


def imperfect_copy(model: PreTrainedModel, order: list[int], noise: float = 0.05) -> PreTrainedModel:
    """A drafter that mostly agrees with ``model`` but numbers its tokens differently: its id ``i`` is ``order[i]``."""
    drafter = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in drafter.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.std() * noise)
        drafter.get_input_embeddings().weight.copy_(drafter.get_input_embeddings().weight[order].clone())
        if drafter.get_output_embeddings().weight is not drafter.get_input_embeddings().weight:
            drafter.get_output_embeddings().weight.copy_(drafter.get_output_embeddings().weight[order].clone())
    return drafter
