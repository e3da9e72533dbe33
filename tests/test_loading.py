"""Checkpoints of every kind: with images, in several files, without the usual special tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlavaConfig,
)

from tests.cli import checkpoint, hsd

SIZES = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 128, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
SIGHT = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip


def test_a_model_that_sees_images_writes_text_about_text(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=Gemma3TextConfig(**SIZES),
            vision_config=SIGHT,
            mm_tokens_per_image=4,
            image_token_index=50,
            boi_token_index=51,
            eoi_token_index=52,
        )
    )
    model.save_pretrained(folder)
    result = hsd("generate", "--json", "-t", folder, "-n", 5, "abc")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    theirs = model.eval().generate(torch.tensor([[1, 2, 3]]), max_new_tokens=5, do_sample=False)
    assert found["token_ids"] == theirs[0, 3:].tolist()


def test_a_model_with_images_that_cannot_be_loaded_for_text_is_one_line(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    LlavaConfig(text_config=LlamaConfig(**SIZES), vision_config=CLIPVisionConfig(**SIGHT)).save_pretrained(folder)
    result = hsd("generate", "-t", folder, "abc")
    assert result == (1, "", f"hsd: {folder!r} is a llava model; hsd needs a causal language model\n")


def test_weights_in_several_files_are_one_model(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="2KB")
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 1
    assert hsd("generate", "-q", "-t", folder, "-n", 3, "a") == (0, "bcd", "")
    parts[0].unlink()
    result = hsd("generate", "-t", folder, "-n", 3, "a")
    assert (result.code, result.out) == (1, "")
    assert re.fullmatch("hsd: .*\n", result.err)


def test_without_bos_eos_and_pad_tokens_an_empty_message_has_something_to_read(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, chat_template="{{ messages[0]['content'].strip() }}")
    result = hsd("generate", "-q", "-t", folder, "-n", 2, " ")
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize("part", ["config.json", "tokenizer_config.json"])
def test_a_program_in_a_checkpoint_is_not_run(tmp_path: Path, part: str) -> None:
    folder = checkpoint(tmp_path / "model")
    path = Path(folder, part)
    classes = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M", "AutoTokenizer": ["own.T", "own.T"]}
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"auto_map": classes, "model_type": "own", "tokenizer_class": "T"})
    )
    Path(folder, "own.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    result = hsd("generate", "-t", folder, "a")
    sentence = "comes with a program of its own, and hsd runs none; choose a model that transformers knows"
    assert result == (1, "", f"hsd: {folder!r} {sentence}\n")
    assert not (tmp_path / "trace").exists()
