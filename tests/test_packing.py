"""Weights in the order that a CPU likes best: the same numbers, wherever the library or we use them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hsd_cli.runtime import packing
from hsd_cli.runtime.dense import dense_decoder
from hsd_cli.runtime.model import CachedModel
from hsd_cli.runtime.packing import PackedLinear, PackedPart, pack
from tests.architectures import CONFIGS, RECURRENT, random_model

TEXT = torch.tensor(list(b"while True: pass  # and so on, for ever and a day"))
EVERYTHING_IS = {"large": 0, "small": 1 << 30}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 48), (5, 48), (2, 3, 48)])
def test_a_packed_map_is_the_map(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    plain, states = nn.Linear(48, 80, bias=bias), torch.randn(shape)
    with torch.inference_mode():
        packed = PackedLinear(plain.weight, plain.bias)
        torch.testing.assert_close(packed(states), plain(states), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(PackedPart(packed, 16, 30)(states), plain(states)[..., 16:46], rtol=1e-5, atol=1e-5)
    assert torch.equal(packed.weight.to_dense(), plain.weight)
    assert packed.weight.nbytes == plain.weight.nbytes


@pytest.mark.parametrize("size", EVERYTHING_IS)
@pytest.mark.parametrize("architecture", CONFIGS | RECURRENT)
@torch.inference_mode()
def test_a_packed_model_says_what_it_said(architecture: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGE", EVERYTHING_IS[size])
    model = random_model((CONFIGS | RECURRENT)[architecture])
    expected = model(input_ids=TEXT[None]).logits[0]
    pack(model)
    tolerance = float(expected.abs().max()) * 1e-4
    torch.testing.assert_close(model(input_ids=TEXT[None]).logits[0], expected, rtol=0, atol=tolerance)
    ours = CachedModel(model, capacity=64)
    parts = [ours.run(TEXT[:20]), ours.run(TEXT[20:21]), ours.run(TEXT[21:])]
    torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=tolerance)
    # Whoever asks the library again gets the same answer still.
    torch.testing.assert_close(model(input_ids=TEXT[None]).logits[0], expected, rtol=0, atol=tolerance)


def test_large_maps_are_packed_and_read_by_the_lean_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGE", 0)
    model = random_model(CONFIGS["llama"])
    pack(model)
    assert dense_decoder(model) is not None
    kinds = {type(part) for part in model.modules() if hasattr(part, "out_features")}
    assert kinds == {PackedLinear, PackedPart}


def test_maps_whose_numbers_the_models_code_works_with_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGE", 0)
    model = random_model(RECURRENT["jamba"])
    pack(model)
    kinds = {name.rpartition(".")[2]: type(part) for name, part in model.named_modules()}
    assert (kinds["dt_proj"], kinds["in_proj"]) == (nn.Linear, PackedLinear)


def test_small_maps_lie_in_columns() -> None:
    model = random_model(CONFIGS["llama"])
    pack(model)
    maps = [part for part in model.modules() if hasattr(part, "out_features")]
    assert {type(part) for part in maps} == {nn.Linear}
    assert all(part.weight.stride() == (1, part.out_features) for part in maps)


def test_a_shared_head_is_packed_and_the_embeddings_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGE", 0)
    config = copy.deepcopy(CONFIGS["qwen2"])
    config.tie_word_embeddings = True
    model = random_model(config)
    before = model.get_input_embeddings().weight.clone()
    pack(model)
    assert torch.equal(model.get_input_embeddings().weight, before)
    assert type(model.get_output_embeddings()) is PackedLinear


def test_half_precision_is_packed_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGE", 0)
    model = nn.Sequential(nn.Linear(8, 8).half(), nn.Linear(8, 8).bfloat16())
    pack(model)
    assert type(model[0]) is nn.Linear
    assert (type(model[1]) is PackedLinear) == torch.ops.mkldnn._is_mkldnn_bf16_supported()
