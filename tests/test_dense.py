"""The forward pass of our own: the library's numbers, its weights, and only for models that it is right for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers import MistralConfig, Phi3Config, PreTrainedConfig, PreTrainedModel, Qwen2Config, masking_utils
from transformers.models.llama.modeling_llama import LlamaMLP

from hsd_cli.runtime import dense
from hsd_cli.runtime.dense import PROBE, dense_decoder
from hsd_cli.runtime.model import CachedModel
from tests.architectures import ALTERNATING, CONFIGS, MULTIMODAL, RESCALED, ROPE, SIZES, WINDOW, random_model

DENSE: dict[str, PreTrainedConfig] = {
    name: CONFIGS[name]
    for name in (
        *("llama", "qwen2", "qwen3", "mistral", "phi3", "gemma", "gemma2", "gemma3"),
        *("smollm3", "granite", "olmo 2", "olmo 3", "seed-oss"),
    )
} | {
    "mistral without a window": MistralConfig(**SIZES, sliding_window=None),
    "qwen2 with windows": Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=WINDOW, layer_types=ALTERNATING[::-1]
    ),
    "phi 4": Phi3Config(**SIZES, rope_parameters=ROPE | {"partial_rotary_factor": 0.5}),
}
EXPERTS = {name: CONFIGS[name] for name in ("mixtral", "qwen3 with experts")}
SEEING = {name: MULTIMODAL[name] for name in ("gemma3 with images", "internvl", "llava", "mistral 3", "voxtral")}
SERVED = DENSE | EXPERTS | SEEING | RESCALED
TEXT = torch.tensor(list(b"while True: pass  # and so on, for ever and a day"))


def model_of(name: str) -> PreTrainedModel:
    """No norm is as it was made: some families keep the weights' differences from one."""
    model = random_model(copy.deepcopy(SERVED[name]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) / 4)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SERVED)
@torch.inference_mode()
def test_the_numbers_are_the_librarys(name: str, dtype: torch.dtype) -> None:
    model = model_of(name).to(dtype)
    expected = model(input_ids=TEXT[None]).logits[0]
    ours = CachedModel(model, capacity=4)
    assert dense_decoder(model) is not None
    parts = [ours.prefill(TEXT[:20].tolist()), ours.run(TEXT[20:25]), ours.run(TEXT[25:26])]
    ours.run(TEXT[:9])  # what was drafted in vain
    ours.rollback(26)
    parts.append(ours.run(TEXT[26:]))
    ours.rollback(8)  # before the beginning of what a window saw last
    ours.prefill(TEXT[8:20].tolist())
    parts.append(ours.run(TEXT[20:]))
    tolerance = 40 * torch.finfo(dtype).eps * float(expected.abs().max())
    torch.testing.assert_close(torch.cat(parts), torch.cat([expected[19:], expected[20:]]), atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gemma3"])
@torch.inference_mode()
def test_a_prompt_is_read_at_once_or_in_parts(name: str) -> None:
    model = model_of(name)
    text = TEXT.repeat(3)
    expected = model(input_ids=text[None]).logits[0]
    ours = CachedModel(model, capacity=4)
    torch.testing.assert_close(ours.run(text), expected, atol=2e-4, rtol=1e-4)
    ours.rollback(0)
    found = [ours.run(part) for part in text.split(50)]
    torch.testing.assert_close(torch.cat(found), expected, atol=2e-4, rtol=1e-4)


def test_the_weights_are_shared_and_the_model_stays_as_it_was() -> None:
    model = random_model(CONFIGS["qwen2"])
    before = copy.deepcopy(model.state_dict())
    CachedModel(model, capacity=4)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    attention = model.model.layers[0].self_attn
    storages = {part.weight.untyped_storage().data_ptr() for part in (attention.q_proj, attention.k_proj)}
    assert len(storages) == 1
    assert dense_decoder(model) is dense_decoder(model)


@pytest.mark.parametrize("name", sorted((CONFIGS | MULTIMODAL).keys() - SERVED.keys()))
def test_other_models_are_left_to_the_library(name: str) -> None:
    assert dense_decoder(random_model((CONFIGS | MULTIMODAL)[name])) is None


@pytest.mark.parametrize("window", [PROBE - 1, 100])
def test_a_library_whose_windows_are_others_is_left_to_itself(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    narrower: Callable[[int], object] = masking_utils.sliding_window_overlay
    monkeypatch.setattr(masking_utils, "sliding_window_overlay", lambda size: narrower(size - 1))
    config = MistralConfig(**SIZES, sliding_window=window)
    assert dense_decoder(random_model(config)) is None
    assert config.sliding_window == window
    monkeypatch.undo()
    assert dense_decoder(random_model(config)) is not None


@pytest.mark.parametrize("name", ["gemma3", "smollm3", "granite", "olmo 2"])
def test_what_a_family_does_otherwise_matters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of models that are so like others that they might be taken for them."""
    changes = {
        "gemma3": ("rotary", lambda layer: layer.rotary and "full_attention"),
        "smollm3": ("rotary", lambda layer: ""),
        "granite": ("output", lambda layer: lambda states: 2 * layer.output(states)),
        "olmo 2": ("behind", lambda layer: None),
    }
    field, change = changes[name]
    stack_of = dense.stack_of

    def changed(model: PreTrainedModel) -> object:
        stack = stack_of(model)
        return replace(stack, layers=[replace(layer, **{field: change(layer)}) for layer in stack.layers])

    monkeypatch.setattr(dense, "stack_of", changed)
    config = copy.deepcopy(SERVED[name])
    if name == "gemma3":  # as in all of them
        config.rope_parameters["full_attention"]["rope_theta"] = 1e6
    assert dense_decoder(random_model(config)) is None


def test_a_class_that_has_become_another_thing_is_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: 0.5 * forward(self, x))
    model = random_model(CONFIGS["llama"])
    assert dense_decoder(model) is None
    with torch.inference_mode():
        expected = model(input_ids=TEXT[None]).logits[0, -1:]
    torch.testing.assert_close(CachedModel(model, capacity=4).prefill(TEXT.tolist()), expected)
