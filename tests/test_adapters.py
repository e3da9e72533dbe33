"""A LoRA adapter in the place of a model, and one beside a model."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tests.cli import checkpoint, hsd
from tests.hub import Hub, Repository, use

CONFIG = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "some/base-7B", "r": 8}).encode()
MERGE = "merge the two, with AutoPeftModelForCausalLM.from_pretrained(ADAPTER).merge_and_unload()"


@pytest.mark.parametrize("with_config", [False, True], ids=["alone", "with the base's config.json"])
def test_an_adapter_is_no_model(with_config: bool, letters: str, tmp_path: Path) -> None:
    checkpoint(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes(CONFIG)
    if not with_config:
        (tmp_path / "config.json").unlink()
    for models in (("-t", tmp_path), ("-t", letters, "-d", tmp_path, "--strict")):
        result = hsd("generate", *models, "a")
        assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
        assert f"'{tmp_path}' is a LoRA adapter of 'some/base-7B', not a model by itself; {MERGE}" in result.err


@pytest.mark.parametrize("content", [b"{}", b"[]", b"no JSON"])
def test_an_adapter_that_does_not_say_of_what(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(content)
    result = hsd("generate", "-t", tmp_path, "a")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "is an adapter of 'another model', not a model by itself" in result.err


def test_one_beside_a_model_is_left_out_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_bytes(CONFIG)
    with caplog.at_level(logging.WARNING):
        assert hsd("generate", "-n", 3, "--no-stats", "-t", model, "abc").out == "def"
    assert [f"{model!r} has an adapter beside its weights, which is left out" in each for each in caplog.messages] == [
        True
    ]


def test_one_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {"adapter_config.json": CONFIG, "adapter_model.safetensors": b"", "tokenizer.json": b"{}"}
    with Hub({"some/lora": Repository(files)}) as hub:
        use(hub, tmp_path, monkeypatch)
        result = hsd("pull", "some/lora")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "'some/lora' is an adapter (LoRA or another one), not a model by itself; merge the two" in result.err
