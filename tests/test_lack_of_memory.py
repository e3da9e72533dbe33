"""A memory that is too small for what was asked: real failures of allocation on a CPU, which has its own words."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hsd_cli.runtime.lack_of_memory import naming_lack_of_memory
from hsd_cli.runtime.model import CachedModel
from tests.architectures import RECURRENT, random_model
from tests.cli import PAIRS, Result, checkpoint
from tests.forks import forked_hsd

HEADS, HEAD_SIZE = 28, 2048
TOKEN = HEADS * HEAD_SIZE * 2 * 4  # bytes in a cache
NOTICE = "hsd: the drafter failed, so that it goes on without: the device ran out of memory\n"
SENTENCE = "the device ran out of memory; try a shorter text, --dtype bfloat16, --quant int8 or a smaller model"


def hungry(folder: Path, tokens: list[str] | None = None) -> str:
    """Continues the alphabet, and keeps half a megabyte for each token, which it makes no use of."""
    model = checkpoint(folder, context=10_000) if tokens is None else checkpoint(folder, tokens, context=10_000)
    weights = load_file(folder / "model.safetensors")
    size = weights["model.norm.weight"].numel()
    for name in "qkv":
        weights[f"model.layers.0.self_attn.{name}_proj.weight"] = torch.zeros(HEADS * HEAD_SIZE, size)
    weights["model.layers.0.self_attn.o_proj.weight"] = torch.zeros(size, HEADS * HEAD_SIZE)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": HEAD_SIZE}
    (folder / "config.json").write_text(json.dumps(config))
    return model


def with_little_memory(more: int = 1000 * TOKEN) -> None:
    """For the process as it is, and so many bytes more."""
    found = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    most = int(found[1]) * 1024 + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def generate(*arguments: object) -> Result:
    return forked_hsd("generate", "--no-stats", *arguments, prepare=with_little_memory)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    return hungry(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("letters"), context=10_000)


def test_a_text_for_which_there_is_no_room_is_one_line(target: str) -> None:
    assert generate("-t", target, "-n", 8, "a") == (0, "bcdefghi", "")
    done = generate("-t", target, "-n", 3000, "a")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"hsd: {SENTENCE}")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("algorithm", ["slem", "tli"])
def test_a_drafter_for_which_there_is_no_room_is_gone_without(letters: str, tmp_path: Path, algorithm: str) -> None:
    drafter = hungry(tmp_path, [*PAIRS, *map(str, range(10))][:27])
    arguments = ["-t", letters, "-d", drafter, "-a", algorithm, "--stop", "z"]
    done = generate(*arguments, "-n", 3000, "a")
    assert done == (0, "bcdefghijklmnopqrstuvwxy", NOTICE)
    strict = generate(*arguments, "-n", 3000, "--strict", "a")
    assert (strict.code, strict.out) == (1, "")
    assert strict.err.startswith(f"hsd: {SENTENCE}")
    if algorithm == "tli":
        assert generate(*arguments, "-n", 30, "a") == (0, "bcdefghijklmnopqrstuvwxy", "")


def test_a_record_for_which_there_is_no_room_does_not_end_the_batch(target: str, tmp_path: Path) -> None:
    records = tmp_path / "in.jsonl"
    records.write_text('{"prompt": "a"}\n{"prompt": "k", "max_new_tokens": 3000}\n{"prompt": "c"}\n')
    done = generate("-q", "-t", target, "-n", 4, "-i", records)
    first, failed, last = map(json.loads, done.out.splitlines())
    assert (first["text"], last["text"]) == ("bcde", "defg")
    assert failed["error"].startswith(SENTENCE)
    assert done.code == 1


def test_a_model_for_which_there_is_no_room_is_one_line(tmp_path: Path) -> None:
    model = checkpoint(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("gate", "up", "down"):
        shape = (28, 1 << 19) if name == "down" else (1 << 19, 28)
        weights[f"model.layers.0.mlp.{name}_proj.weight"] = torch.zeros(shape)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 1 << 19}))
    done = forked_hsd("generate", "-t", model, "-n", 3, "a", prepare=lambda: with_little_memory(150 << 20))
    reason = f"{model!r} does not fit into the memory of cpu; try --quant int8 or a smaller model"
    assert done == (1, "", f"hsd: {reason}\n")


@pytest.mark.parametrize(
    "fail",
    [lambda: torch.empty(1 << 60), lambda: [0] * (1 << 60), lambda: torch.zeros(1).expand(1 << 55).clone()],
    ids=["tensor", "list", "copy"],
)
def test_every_lack_has_one_name(fail: Callable[[], object]) -> None:
    with pytest.raises(torch.OutOfMemoryError), naming_lack_of_memory():
        fail()
    with pytest.raises(RuntimeError, match="else") as raised, naming_lack_of_memory():
        raise RuntimeError("something else")
    assert raised.type is RuntimeError


# A pass that ends in the middle, some layers having read what others have not


def layers_of(model: Any) -> Any:
    return next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList))


@pytest.mark.parametrize("read_before", [0, 3, 20])
@pytest.mark.parametrize("name", sorted(RECURRENT))
def test_a_recurrent_model_starts_again_after_a_pass_that_failed(name: str, read_before: int) -> None:
    model = random_model(RECURRENT[name])
    text = [7 + number % 90 for number in range(30)]
    expected = CachedModel(model, 64).prefill(text)
    reader = CachedModel(model, 64)
    if read_before:
        reader.prefill(text[:read_before])

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    hook = layers_of(model)[-1].register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        reader.prefill(text[read_before:])
    hook.remove()
    reader.rollback(0)
    torch.testing.assert_close(reader.prefill(text), expected)
