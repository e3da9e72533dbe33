"""Weights in 8 or 4 bits: the text is the quantized target's own, and memory is that of the quantized weights."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from hsd_cli.commands.models import ChosenPair
from hsd_cli.commands.options import Drafting, Models, Quantization
from hsd_cli.engine import Engine, Generation, Request
from hsd_cli.errors import HsdError
from hsd_cli.models.failures import explain_failure
from hsd_cli.models.locate import EMBEDDED_FOLDER
from hsd_cli.planner.footprint import read_footprint
from hsd_cli.planner.memory import Placement, recall, remember
from hsd_cli.planner.pair_plan import plan_pair, read_facts
from hsd_cli.runtime.dense import dense_decoder
from hsd_cli.runtime.loading import LoadedModel, load_model
from hsd_cli.runtime.quantization import quantization_config
from tests.architectures import SIZES, random_model
from tests.cli import checkpoint, hsd
from tests.test_plan_memory import RECORD

needs_library = pytest.mark.skipif(
    find_spec("bitsandbytes") is None or find_spec("accelerate") is None, reason="needs hsd-cli[quant]"
)
TARGET = "embedded:target"
PROMPT = "class Stack:\n    def __init__(self"
TOKENS = 24


@cache
def loaded(name: str, quantization: str | None) -> LoadedModel:
    return replace(load_model(name, "cpu", "float32", quantization), eos_ids=())


def written(target: LoadedModel, drafter: LoadedModel | None, algorithm: str) -> list[int]:
    generation: Generation = Engine(target, drafter).generate(
        Request(PROMPT, algorithm=algorithm, lookahead=4, max_new_tokens=TOKENS)
    )
    return [piece.token for commit in generation.commits for piece in commit.pieces]


def written_by_the_library(target: LoadedModel) -> list[int]:
    ids = Engine(target, None).render(Request(PROMPT)).ids
    text = target.model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=TOKENS, do_sample=False,
        eos_token_id=None,
    )  # fmt: skip
    return text[0, len(ids) :].tolist()


@needs_library
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_greedy_text_is_the_quantized_targets_own(quantization: str) -> None:
    target = loaded(TARGET, quantization)
    expected = written_by_the_library(target)
    assert written(target, None, "ar") == expected
    assert written(target, loaded("embedded:drafter", None), "slem") == expected
    assert written(target, loaded("embedded:twin", None), "sd") == expected


@needs_library
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_quantized_drafter_changes_nothing(quantization: str) -> None:
    target = loaded(TARGET, None)
    assert written(target, loaded("embedded:drafter", quantization), "slem") == written(target, None, "ar")


@needs_library
@pytest.mark.parametrize(("quantization", "bits"), [("int8", 8), ("int4", 4.5)])
def test_memory_is_counted_as_it_is_quantized(quantization: str, bits: float) -> None:
    plain, quantized = loaded(TARGET, None), loaded(TARGET, quantization)
    linear = sum(
        part.weight.numel()
        for name, part in plain.model.named_modules()
        if isinstance(part, nn.Linear) and name != "lm_head"
    )
    saved = linear * (4 - bits / 8)
    # On some processors the scales are packed as well, at the first pass.
    assert quantized.bytes_per_token == pytest.approx(plain.bytes_per_token - saved, rel=0.05)
    footprint = read_footprint(TARGET)
    assert footprint.quantizable == linear
    predicted = footprint.weight_bytes(footprint.read_per_token, torch.float32, quantization)
    assert quantized.bytes_per_token == pytest.approx(predicted, rel=0.05)


@needs_library
@pytest.mark.parametrize(("quant", "draft_quant"), [("int8", None), (None, "int8")])
def test_each_model_is_quantized_only_if_asked(
    quant: Quantization | None, draft_quant: Quantization | None, tmp_path: Path
) -> None:
    name = checkpoint(tmp_path)
    models = Models(name, name, device="cpu", dtype="float32", quant=quant, draft_quant=draft_quant, attention="eager")
    engine = ChosenPair(models, Drafting("sd")).load(quiet=True)
    assert engine.drafter is not None
    classes = [type(side.model.model.layers[0].mlp.up_proj).__name__ for side in (engine.target, engine.drafter)]
    assert classes == ["Linear8bitLt" if each else "Linear" for each in (quant, draft_quant)]
    assert [side.model.config._attn_implementation for side in (engine.target, engine.drafter)] == ["eager"] * 2


@needs_library
def test_the_command_quantizes(tmp_path: Path) -> None:
    name = checkpoint(tmp_path)
    result = hsd("generate", "-t", name, "-d", name, "-a", "sd", "-n", 3, "--quant", "int8", "--json", "abc")
    assert (result.code, json.loads(result.out)["text"]) == (0, "def")


def test_plan_takes_quantized_weights_into_account() -> None:
    target, drafter = read_facts(TARGET), read_facts("embedded:drafter")
    plain = plan_pair(target, drafter, None, "cpu", "float32")
    quantized = plan_pair(target, drafter, None, "cpu", "float32", ("int4", None))
    footprint = target.footprint
    saved = footprint.quantizable * (4 - 4.5 / 8)
    assert quantized.demands[0].target_weights == pytest.approx(plain.demands[0].target_weights - saved, abs=1)
    assert quantized.demands[0].drafter_weights == plain.demands[0].drafter_weights
    assert quantized.step_ratios[0] > plain.step_ratios[0]


def test_measurements_of_plain_weights_are_not_taken_for_quantized_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSD_CACHE", str(tmp_path))
    target, drafter = (Placement(name, torch.device("cpu"), torch.float32) for name in (TARGET, "embedded:drafter"))
    remember(target, drafter, RECORD)
    assert recall(target, drafter) is not None
    assert recall(replace(target, quantization="int8"), drafter) is None


def test_weights_of_another_class_are_left_to_the_library() -> None:
    class Packed(nn.Parameter):
        """As torchao's: a class of its own in an ordinary linear map."""

    model = random_model(LlamaConfig(**SIZES))
    projection = model.model.layers[0].self_attn.q_proj
    projection.weight = Packed(projection.weight.data)
    assert dense_decoder(model) is None


# What is refused, in one line


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsd_cli.runtime.quantization.find_spec", lambda name: None)
    sentence = "hsd: int8 needs bitsandbytes; run: pip install 'hsd-cli[quant]'\n"
    assert hsd("generate", "-q", "--quant", "int8", "x") == (1, "", sentence)


def test_a_quantized_checkpoint_is_not_quantized_again(tmp_path: Path) -> None:
    folder = quantized_checkpoint(tmp_path, {"quant_method": "gptq", "bits": 4})
    result = hsd("generate", "-q", "-t", folder, "-a", "ar", "--quant", "int8", "x")
    assert result == (2, "", f"hsd: {folder!r} is quantized already, by gptq; leave --quant int8 out\n")


def test_what_a_quantized_checkpoint_needs_is_said_in_one_line(tmp_path: Path) -> None:
    folder = quantized_checkpoint(tmp_path, {"quant_method": "aqlm", "nbits_per_codebook": 16})
    result = hsd("generate", "-q", "-t", folder, "-a", "ar", "x")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"hsd: {folder!r} needs a library that is not installed; run: pip install ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ImportError("AWQ requires gptqmodel. Install it with `pip install gptqmodel`"), "pip install gptqmodel"),
        (ImportError("needs it: `pip install -U bitsandbytes>=0.46.1`"), "pip install bitsandbytes"),
        (ValueError("requires `accelerate`. You can install it with `pip install accelerate`"), "install accelerate"),
        (RuntimeError("GPU is required to quantize or run quantize model."), "needs a GPU"),
    ],
)
def test_the_librarys_reasons_become_the_next_thing_to_do(error: Exception, sentence: str) -> None:
    assert sentence in str(explain_failure("a/model", "model", error))


@needs_library
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")  # in the library's way to save
@pytest.mark.parametrize("kind", ["load_in_8bit", "load_in_4bit"])
def test_a_checkpoint_of_bitsandbytes_treats_every_token_alike(kind: str, tmp_path: Path) -> None:
    quantization = {"load_in_8bit": "int8", "load_in_4bit": "int4"}[kind]
    shutil.copytree(EMBEDDED_FOLDER / "target", tmp_path / "saved")
    os.remove(tmp_path / "saved" / "model.safetensors")
    AutoModelForCausalLM.from_pretrained(
        EMBEDDED_FOLDER / "target",
        quantization_config=quantization_config(quantization, torch.device("cpu"), torch.float32),
        dtype=torch.float32,
        device_map={"": "cpu"},
    ).save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"]["llm_int8_threshold"] = 6.0  # the library's default: columns chosen by all tokens
    file.write_text(json.dumps(config))
    again = replace(load_model(str(tmp_path / "saved"), "cpu", "float32"), eos_ids=())
    assert written(again, loaded("embedded:drafter", None), "slem") == written(loaded(TARGET, quantization), None, "ar")


def quantized_checkpoint(folder: Path, method: dict[str, object]) -> str:
    name = checkpoint(folder / "model")
    file = Path(name) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": method}))
    return name


# The attention kernel


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_kernel_is_the_one_asked_for(attention: str) -> None:
    target = replace(load_model(TARGET, "cpu", "float32", attention=attention), eos_ids=())
    assert target.model.config._attn_implementation == attention
    assert written(target, None, "ar") == written(loaded(TARGET, None), None, "ar")


def test_kernels_that_cannot_run_are_refused() -> None:
    flash = hsd("generate", "-q", "--device", "cpu", "--attention", "flash_attention_2", "x")
    assert flash == (2, "", "hsd: --attention flash_attention_2 needs a CUDA GPU; leave it out on cpu\n")
    unknown = hsd("generate", "-q", "--attention", "nope", "x")
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)
    assert "'nope' is not one of 'auto', 'sdpa', 'eager'" in unknown.err


def test_a_kernel_that_the_model_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.LlamaForCausalLM._supports_sdpa", False)
    with pytest.raises(HsdError, match="cannot run with --attention sdpa here; try --attention auto"):
        load_model(TARGET, "cpu", attention="sdpa")
