"""Weights in the order that a CPU likes best: the same numbers, wherever the library or we use them."""

from __future__ import annotations

import copy
import json
from typing import get_args

import pytest
import torch
from torch import nn

from hsd_cli.runtime import loading, packing
from hsd_cli.runtime.dense import dense_decoder
from hsd_cli.runtime.loading import load_model
from hsd_cli.runtime.model import CachedModel
from hsd_cli.runtime.packing import Layout, PackedLinear, PackedPart, Timed, pack
from tests.architectures import CONFIGS, RECURRENT, random_model
from tests.cli import hsd

TEXT = torch.tensor(list(b"while True: pass  # and so on, for ever and a day"))


def everything_is(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if that layout were always fastest: which one is depends on the processor."""
    monkeypatch.setattr(packing, "SMALL", 0)
    monkeypatch.setattr(packing, "_timed", lambda dtype, shape: Timed(layout, 1.0, 1.0))


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


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("architecture", CONFIGS | RECURRENT)
@torch.inference_mode()
def test_a_packed_model_says_what_it_said(architecture: str, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    everything_is(layout, monkeypatch)
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
    everything_is("packed", monkeypatch)
    model = random_model(CONFIGS["llama"])
    pack(model)
    assert dense_decoder(model) is not None
    kinds = {type(part) for part in model.modules() if hasattr(part, "out_features")}
    assert kinds == {PackedLinear, PackedPart}


def test_maps_whose_numbers_the_models_code_works_with_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    everything_is("packed", monkeypatch)
    model = random_model(RECURRENT["jamba"])
    pack(model)
    kinds = {name.rpartition(".")[2]: type(part) for name, part in model.named_modules()}
    assert (kinds["dt_proj"], kinds["in_proj"]) == (nn.Linear, PackedLinear)


def test_maps_lie_in_columns_where_that_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    everything_is("columns", monkeypatch)
    model = random_model(CONFIGS["llama"])
    pack(model)
    maps = [part for part in model.modules() if hasattr(part, "out_features")]
    assert {type(part) for part in maps} == {nn.Linear}
    assert all(part.weight.stride() == (1, part.out_features) for part in maps)


def test_a_shared_head_is_packed_and_the_embeddings_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    everything_is("packed", monkeypatch)
    config = copy.deepcopy(CONFIGS["qwen2"])
    config.tie_word_embeddings = True
    model = random_model(config)
    before = model.get_input_embeddings().weight.clone()
    pack(model)
    assert torch.equal(model.get_input_embeddings().weight, before)
    assert type(model.get_output_embeddings()) is PackedLinear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(256, 192), (1024, 2048)])
def test_the_layout_is_the_one_that_was_fastest(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    weight = torch.zeros(shape, dtype=dtype)
    layout = packing.fastest_layout(weight)
    assert layout in get_args(Layout)
    assert layout != "packed" or packing.has_order(dtype)
    assert layout == packing.fastest_layout(weight)  # timed once: a joined map and its parts must not disagree


def test_what_lies_still_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_timed", None)
    assert packing.fastest_layout(torch.zeros(8, 8)) == "rows"
    assert packing.fastest_layout(torch.zeros(1024, 1024, device="meta")) == "rows"


def timed(monkeypatch: pytest.MonkeyPatch, half: tuple[float, float], full: tuple[float, float]) -> None:
    known = {torch.bfloat16: Timed("rows", *half), torch.float32: Timed("packed", *full)}
    monkeypatch.setattr(packing, "_timed", lambda dtype, shape: known[dtype])


def test_drafters_have_the_format_that_is_fastest_for_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, half=(0.5, 8.0), full=(1.0, 2.0))
    assert packing.one_token_dtype() == torch.bfloat16
    timed(monkeypatch, half=(0.9, 1.0), full=(1.0, 2.0))  # not worth rounding all weights
    assert packing.one_token_dtype() == torch.float32


def test_half_precision_is_slower_where_drafts_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, half=(0.5, 8.0), full=(1.0, 2.0))
    assert packing.is_slower(torch.bfloat16)
    timed(monkeypatch, half=(0.5, 1.0), full=(1.0, 2.0))
    assert not packing.is_slower(torch.bfloat16)


@pytest.fixture
def half_drafts_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor without products of half precision, for which even the embedded models are large."""
    timed(monkeypatch, half=(0.5, 8.0), full=(1.0, 2.0))
    monkeypatch.setattr(packing, "SMALL", 1 << 30)
    monkeypatch.setattr(loading, "LARGE", 0)


@pytest.mark.usefixtures("half_drafts_fastest")
def test_a_drafter_is_loaded_in_that_format_and_the_target_in_float32() -> None:
    found = json.loads(
        hsd("generate", "--json", "--draft", "embedded:drafter", "-t", "embedded:target", "-n", 8, "a").out
    )
    assert (found["target"]["dtype"], found["draft"]["dtype"]) == ("float32", "bfloat16")
    asked = ["--dtype", "float32", "-t", "embedded:target", "-d", "embedded:drafter", "-n", 8, "a"]
    found = json.loads(hsd("generate", "--json", *asked).out)
    assert found["draft"]["dtype"] == "float32"


@pytest.mark.usefixtures("half_drafts_fastest")
def test_half_precision_that_is_slower_is_said_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    load_model("embedded:target", "cpu", "float32")
    assert caplog.messages == []
    load_model("embedded:target", "cpu", "bfloat16")
    assert caplog.messages == ["embedded:target checks drafts more slowly in bfloat16 than in float32 on this CPU"]
