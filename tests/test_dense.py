"""The forward pass of our own: the library's numbers, its weights, and only for models that it is right for."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import MistralConfig, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaMLP

from hsd_cli.runtime.cache import RollbackCache
from hsd_cli.runtime.dense import dense_decoder
from hsd_cli.runtime.model import CachedModel
from tests.architectures import CONFIGS, RESCALED, SIZES, random_model

MISTRAL = MistralConfig(**SIZES, sliding_window=None)
DENSE = {name: CONFIGS[name] for name in ("llama", "qwen2", "qwen3")} | {"mistral without a window": MISTRAL}
TEXT = torch.tensor(list(b"while True: pass  # and so on, for ever and a day"))


def decoder_of(model: PreTrainedModel) -> object:
    return dense_decoder(model, RollbackCache(model.config, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", DENSE)
@torch.inference_mode()
def test_the_numbers_are_the_librarys(name: str, dtype: torch.dtype) -> None:
    model = random_model(DENSE[name]).to(dtype)
    expected = model(input_ids=TEXT[None]).logits[0]
    ours = CachedModel(model, capacity=4)
    assert decoder_of(model) is not None
    parts = [ours.prefill(TEXT[:20].tolist()), ours.run(TEXT[20:25]), ours.run(TEXT[25:26])]
    ours.run(TEXT[:9])  # what was drafted in vain
    ours.rollback(26)
    parts.append(ours.run(TEXT[26:]))
    tolerance = 30 * torch.finfo(dtype).eps * float(expected.abs().max())
    torch.testing.assert_close(torch.cat(parts), expected[19:], atol=tolerance, rtol=0)


def test_the_weights_are_shared_and_the_model_stays_as_it_was() -> None:
    model = random_model(CONFIGS["qwen2"])
    before = copy.deepcopy(model.state_dict())
    CachedModel(model, capacity=4)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    attention = model.model.layers[0].self_attn
    storages = {part.weight.untyped_storage().data_ptr() for part in (attention.q_proj, attention.k_proj)}
    assert len(storages) == 1
    assert decoder_of(model) is decoder_of(model)


@pytest.mark.parametrize("name", sorted((CONFIGS | RESCALED).keys() - DENSE.keys()))
def test_other_models_are_left_to_the_library(name: str) -> None:
    assert decoder_of(random_model((CONFIGS | RESCALED)[name])) is None


def test_a_class_that_has_become_another_thing_is_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: 0.5 * forward(self, x))
    model = random_model(CONFIGS["llama"])
    assert decoder_of(model) is None
    with torch.inference_mode():
        expected = model(input_ids=TEXT[None]).logits[0, -1:]
    torch.testing.assert_close(CachedModel(model, capacity=4).prefill(TEXT.tolist()), expected)
