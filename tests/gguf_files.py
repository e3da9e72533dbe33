"""GGUF files as llama.cpp's converter makes them, of checkpoints in folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, get_tensor_name_map, quants
from transformers import AutoConfig, AutoModelForCausalLM

from hsd_cli.vocab.token_bytes import BYTE_TOKEN


def gguf_of(
    folder: str | Path,
    path: Path,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    divisors: Sequence[float] = (),
    **metadata: Any,
) -> Path:
    """Writes the Llama, Qwen 2 or 3, Phi 3 or Gemma 2 of ``folder`` to ``path``, its matrices as ``kind``, the rest as
    float32.

    ``divisors`` are of rotary frequencies.
    """
    config = AutoConfig.from_pretrained(folder)
    writer = GGUFWriter(path, config.model_type)
    _describe(writer, config)
    _add_tokenizer(writer, json.loads((Path(folder) / "tokenizer.json").read_text()), config)
    for key, value in metadata.items():
        {str: writer.add_string, int: writer.add_uint32, bool: writer.add_bool}[type(value)](key, value)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    names = get_tensor_name_map(
        next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type),
        config.num_hidden_layers,
    )
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        weights = tensor.numpy()
        if config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
            weights = _permuted(weights, config.num_attention_heads if "q_" in name else config.num_key_value_heads)
        if config.model_type == "gemma2" and "norm" in name:
            weights = weights + 1  # here one is added to these when they are used
        stored = kind if weights.ndim == 2 else GGMLQuantizationType.F32
        data = quants.quantize(np.ascontiguousarray(weights), stored)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), data, raw_dtype=stored)
    if divisors:
        writer.add_tensor("rope_freqs.weight", np.array(divisors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.model_type == "llama":
        writer.add_rope_dimension_count(config.head_dim)
    if config.model_type in ("qwen3", "gemma2"):
        writer.add_key_length(config.head_dim)
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: GGUFWriter, description: dict[str, Any], config: Any) -> None:
    vocabulary, merges = description["model"]["vocab"], description["model"]["merges"]
    tokens = [f"[PAD{index}]" for index in range(config.vocab_size)]
    types = [TokenType.UNUSED] * config.vocab_size
    scores = [0.0] * config.vocab_size
    for token, index in vocabulary.items():
        tokens[index], types[index] = token, TokenType.BYTE if BYTE_TOKEN.fullmatch(token) else TokenType.NORMAL
    for token in description["added_tokens"]:
        tokens[token["id"]] = token["content"]
        types[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    for rank, pair in enumerate(merges):
        scores[vocabulary["".join(pair)]] = -float(rank + 1)
    byte_level = description["decoder"]["type"] == "ByteLevel"
    writer.add_tokenizer_model("gpt2" if byte_level else "llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if byte_level:
        writer.add_token_merges([" ".join(pair) for pair in merges])
    else:
        writer.add_token_scores(scores)
        writer.add_unk_token_id(vocabulary["<unk>"])
    writer.add_add_bos_token(not byte_level)
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)


def _permuted(weights: Any, heads: int) -> Any:
    """Rotary positions turn neighbours there, halves here."""
    return weights.reshape(heads, 2, -1, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)
