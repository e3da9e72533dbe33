"""Models in parts: some layers are here, others are fetched from a disk for each pass, by accelerate's hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from torch import nn

from hsd_cli.batch_engine import BatchEngine
from hsd_cli.decoding.loop import Commit
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Engine, Request
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.runtime import packing
from hsd_cli.runtime.loading import LoadedModel, load_model
from hsd_cli.runtime.model import CachedModel
from hsd_cli.runtime.packing import PackedLinear, Timed
from hsd_cli.runtime.placement import devices_of, input_device, is_whole, shared_out
from tests.architectures import CONFIGS, RECURRENT, random_model
from tests.cli import hsd
from tests.serving import Server

ENDS = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
SKIPPED = ["past_key_values", "cache_params"]
LAYERS = 12  # of the embedded target
EVERY_OTHER: dict[str, str] = ENDS | {f"model.layers.{index}": ("cpu", "disk")[index % 2] for index in range(LAYERS)}
SAMPLED = {"sampling": SamplingSettings(1.0), "seed": 3}


@pytest.fixture(scope="module")
def loaded() -> Callable[[str], LoadedModel]:
    return cache(load_model)


@pytest.fixture(scope="module")
def in_parts() -> LoadedModel:
    return load_model("embedded:target", device_map=EVERY_OTHER)


def written(target: LoadedModel, drafter: LoadedModel | None, algorithm: str, **options: Any) -> str:
    request = Request("class Stack:\n    def", chat=False, algorithm=algorithm, max_new_tokens=16, **options)
    return "".join(commit.text for commit in Engine(target, drafter).generate(request).commits)


def test_the_parts_are_where_they_were_put(in_parts: LoadedModel) -> None:
    layers: Any = in_parts.model.model.layers
    assert layers[1].self_attn.q_proj.weight.device.type == "meta"
    assert not is_whole(in_parts.model)
    assert input_device(in_parts.model) == torch.device("cpu")
    assert "disk" in devices_of(in_parts.model)


def test_no_weights_are_laid_out_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_timed", lambda dtype, shape: Timed("packed", 1.0, 1.0))
    layers = {"model.layers.0": "cpu", "model.layers.1": "disk"}
    for device_map, expected in ((None, True), (ENDS | layers, False)):
        model = load_model("embedded:twin", device_map=device_map).model
        assert any(isinstance(part, PackedLinear) for part in model.modules()) == expected


@pytest.mark.parametrize("algorithm", ["slem", "slrs", "auto"])
@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_the_text_is_that_of_the_model_in_one_piece(
    in_parts: LoadedModel, algorithm: str, options: dict[str, Any], loaded: Callable[[str], LoadedModel]
) -> None:
    text = written(in_parts, loaded("embedded:drafter"), algorithm, **options)
    assert text == written(loaded("embedded:target"), None, "ar", **options)


def test_even_embeddings_and_head_may_be_fetched(loaded: Callable[[str], LoadedModel]) -> None:
    from_disk = load_model("embedded:target", device_map=dict.fromkeys(EVERY_OTHER, "disk"))
    assert {weights.device.type for weights in from_disk.model.parameters()} == {"meta"}
    assert written(from_disk, None, "lookup") == written(loaded("embedded:target"), None, "ar")


@pytest.mark.parametrize("kind", ["gemma3", "mixtral", "gpt2", "falcon-mamba", "jamba"])
def test_every_cache_rolls_back_in_parts(kind: str, tmp_path: Path) -> None:
    config = (CONFIGS | RECURRENT)[kind]
    whole = CachedModel(random_model(config), capacity=8)
    model = random_model(config)
    layers = next(name for name, part in model.named_modules() if isinstance(part, nn.ModuleList))
    dispatch_model(model, {"": "cpu", f"{layers}.1": "disk"}, offload_dir=tmp_path, skip_keys=SKIPPED)
    parts = CachedModel(model, capacity=8)
    first, second = torch.arange(40), torch.arange(20, 60)
    for reader in (whole, parts):
        reader.begin(first.tolist())
        reader.run(first)
        reader.rollback(25)
    torch.testing.assert_close(parts.run(second), whole.run(second))  # not equal: only what is whole has a lean pass


def test_where_everything_fits_the_map_changes_nothing(loaded: Callable[[str], LoadedModel]) -> None:
    mapped = load_model("embedded:target", device_map="auto")
    assert is_whole(mapped.model)
    assert written(mapped, None, "ar") == written(loaded("embedded:target"), None, "ar")


def test_a_part_that_is_fetched_runs_on_the_first_gpu(in_parts: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_parts.model, "hf_device_map", {"a": "cpu", "b": "cuda:1", "c": "cuda:0"})
    assert input_device(in_parts.model) == torch.device("cuda", 1)


def test_the_command_takes_a_map() -> None:
    plain = hsd("generate", "-n", 12, "-q", "import os")
    assert hsd("generate", "-n", 12, "-q", "--device-map", "auto", "import os") == plain


def test_a_server_takes_a_map() -> None:
    plain = hsd("generate", "-n", 12, "-q", "import os").out.removesuffix("\n")
    with Server("--device-map", "auto", fork=True) as server:
        asked: dict[str, Any] = {"model": "embedded:target", "prompt": "import os", "max_tokens": 12, "temperature": 0}
        assert server.openai.completions.create(**asked).choices[0].text == plain


def test_texts_of_a_model_in_parts_take_turns(in_parts: LoadedModel) -> None:
    wanted = [Request(prompt, max_new_tokens=6) for prompt in ("import os", "class Stack:")]
    alone = ["".join(commit.text for commit in Engine(in_parts, None).generate(each).commits) for each in wanted]
    engine = BatchEngine(Engine(in_parts, None), 2)
    texts = {engine.begin(request): "" for request in wanted}
    turns = []
    while engine.texts:
        for text, happened in engine.step():
            assert isinstance(happened, Commit), happened
            texts[text] += happened.text
            turns.append(text)
    assert list(texts.values()) == alone
    assert turns[:4] == [*texts] * 2


def test_two_ways_to_place_the_target_are_one_too_many() -> None:
    done = hsd("generate", "--device-map", "auto", "--device", "cpu", "x")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "--device-map" in done.err


def test_without_accelerate_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UsageError, match=r"--device-map .* pip install 'hsd-cli\[multi\]'"):
        load_model("embedded:target", device_map="auto")
    with pytest.raises(UsageError, match=r"--tensor-parallel .* pip install 'hsd-cli\[multi\]'"):
        shared_out("llama", CONFIGS["llama"], 2)


@pytest.mark.parametrize(
    ("kind", "processes", "says"),
    [
        ("llama", 4, "4 attention heads and 2 key-value heads of 'llama'; 2 can"),
        ("mixtral", 3, "; 2 can"),
        ("bloom", 2, "cannot share out a bloom model"),
    ],
)
def test_models_that_cannot_be_shared_out(kind: str, processes: int, says: str) -> None:
    with pytest.raises(HsdError, match=says):
        shared_out(kind, CONFIGS[kind], processes)
