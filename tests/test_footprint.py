"""What `hsd plan` counts from a configuration, against the models themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, MixtralConfig, PreTrainedConfig, RwkvConfig, T5Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from hsd_cli.errors import HsdError
from hsd_cli.planner.footprint import Footprint, read_footprint
from hsd_cli.runtime.cache import RollbackCache, RollbackLayer
from hsd_cli.runtime.model import cache_argument
from tests.architectures import RECURRENT

LLAMA = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "tied": LlamaConfig(**LLAMA, num_key_value_heads=4, tie_word_embeddings=True),
    "untied": LlamaConfig(**LLAMA, num_key_value_heads=4, tie_word_embeddings=False),
    "grouped": LlamaConfig(**LLAMA, num_key_value_heads=1, head_dim=6, tie_word_embeddings=False),
    "gpt2": GPT2Config(vocab_size=50, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2),
    "experts": MixtralConfig(**LLAMA, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2),
}


def footprint(config: PreTrainedConfig, folder: Path) -> Footprint:
    config.save_pretrained(folder)
    return read_footprint(str(folder))


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_and_cache_are_those_of_the_model(name: str, tmp_path: Path) -> None:
    counted = footprint(CONFIGS[name], tmp_path)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32)
    assert counted.parameters == model.num_parameters()
    cache = RollbackCache(model.config, capacity=10)
    with torch.inference_mode():
        model(input_ids=torch.ones(1, 10, dtype=torch.int64), past_key_values=cache, use_cache=True)
    layers = [layer for layer in cache.layers if isinstance(layer, RollbackLayer)]
    held = sum(states.nbytes for layer in layers for states in (layer.keys, layer.values) if states is not None)
    assert counted.cache_per_token * 10 * torch.float32.itemsize == held
    assert (counted.context_size, counted.layers) == (64, model.config.num_hidden_layers)
    assert counted.unknown is None


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_states_and_their_snapshots_do_not_grow_with_the_text(name: str, tmp_path: Path) -> None:
    counted = footprint(RECURRENT[name], tmp_path)
    model = AutoModelForCausalLM.from_config(RECURRENT[name], dtype=torch.float32)
    cache = RollbackCache(model.config, capacity=10)
    with torch.inference_mode():
        model(input_ids=torch.ones(1, 10, dtype=torch.int64), use_cache=True, **{cache_argument(model): cache})
    state = sum(state.numel() for state in cache.recurrent_states)
    assert counted.state == 5 * state > 0  # four snapshots
    assert counted.cache(1000) - counted.cache(0) == 1000 * counted.cache_per_token
    assert counted.cache(0) == counted.state


def test_embeddings_are_read_only_where_the_head_is_the_same_matrix(tmp_path: Path) -> None:
    tied, untied = (footprint(CONFIGS[name], tmp_path / name) for name in ("tied", "untied"))
    assert tied.read_per_token == tied.parameters
    assert untied.parameters - untied.read_per_token == 50 * 16
    assert tied.read_per_token == untied.read_per_token


def test_learnt_positions_are_looked_up(tmp_path: Path) -> None:
    counted = footprint(CONFIGS["gpt2"], tmp_path)
    assert counted.parameters - counted.read_per_token == 64 * 16


def test_experts_that_are_not_chosen_are_not_read(tmp_path: Path) -> None:
    counted = footprint(CONFIGS["experts"], tmp_path)
    expert = 3 * 16 * 24
    assert counted.parameters - counted.read_per_token == 50 * 16 + 3 * 2 * expert  # 2 of 4 in each of 3 layers


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    config = LlamaConfig(**LLAMA, quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quantised" in str(footprint(config, tmp_path).unknown)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (T5Config(), "encoder-decoder"),
        (RwkvConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2), "does not use the cache"),
        (LlamaConfig(**LLAMA, hidden_act="nonsense"), "describes no model that can run"),
    ],
)
def test_models_that_cannot_run_are_refused_by_name(config: PreTrainedConfig, says: str, tmp_path: Path) -> None:
    with pytest.raises(HsdError, match=says) as failure:
        footprint(config, tmp_path)
    assert str(tmp_path) in str(failure.value)


def test_nothing_is_allocated(tmp_path: Path) -> None:
    """A terabyte of weights."""
    config = LlamaConfig(**LLAMA | {"hidden_size": 1 << 17, "intermediate_size": 1 << 17, "num_attention_heads": 1024})
    assert footprint(config, tmp_path).parameters > 10**11
