"""Checkpoints of every kind: with images, in several files, without the usual special tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

from hsd_cli.planner.footprint import read_footprint
from hsd_cli.runtime.loading import load_model
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


def with_images(kind: str) -> PreTrainedModel:
    """A random model that sees images, too, most of which is what sees them."""
    sight = SIGHT | {"intermediate_size": 400}
    if kind == "llava":
        config = LlavaConfig(text_config=LlamaConfig(**SIZES), vision_config=CLIPVisionConfig(**sight))
        return LlavaForConditionalGeneration(config).eval()
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=Gemma3TextConfig(**SIZES),
            vision_config=sight,
            mm_tokens_per_image=4,
            image_token_index=50,
            boi_token_index=51,
            eoi_token_index=52,
        )
    ).eval()


@pytest.mark.parametrize("kind", ["gemma3", "llava"])
def test_a_model_that_sees_images_writes_text_about_text(kind: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    model = with_images(kind)
    model.save_pretrained(folder)
    theirs = model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=5, do_sample=False)
    for algorithm in ("ar", "sd"):
        result = hsd("generate", "--json", "-t", folder, "-d", folder, "-a", algorithm, "-n", 5, "abc")
        assert (result.code, result.err) == (0, "")
        assert json.loads(result.out)["token_ids"] == theirs[0, 3:].tolist()


@pytest.mark.parametrize("kind", ["gemma3", "llava"])
def test_what_sees_images_is_not_read_for_text(kind: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    model = with_images(kind)
    model.save_pretrained(folder)
    text = sum(weights.numel() for weights in model.get_decoder().parameters())
    embeddings = model.get_input_embeddings().weight.numel()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    read = text if tied else text - embeddings + model.get_output_embeddings().weight.numel()
    buffers = 1000  # bytes: rotary frequencies
    assert 0 <= load_model(folder, "cpu", "float32", packed=False).bytes_per_token - 4 * read < buffers
    footprint = read_footprint(folder)
    assert footprint.read_per_token == read
    assert footprint.parameters == model.num_parameters() > 1.5 * read  # all of it is in memory


def test_a_model_that_needs_images_is_one_line(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BlipConfig(text_config=text | {"vocab_size": 64}, vision_config=SIGHT)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    for command in (["generate", "-t", folder, "abc"], ["plan", folder, "embedded:drafter"]):
        result = hsd(*command)
        assert (result.code, result.out) == (1, "")
        assert re.fullmatch(r"hsd: .* on text .*'pixel_values'.*\n", result.err)


def test_weights_in_several_files_are_one_model(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="2KB")
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 1
    for algorithm in ("ar", "sd"):
        assert hsd("generate", "-q", "-t", folder, "-d", folder, "-a", algorithm, "-n", 3, "a") == (0, "bcd", "")
    parts[0].unlink()
    result = hsd("generate", "-t", folder, "-n", 3, "a")
    assert (result.code, result.out) == (1, "")
    assert re.fullmatch("hsd: .*\n", result.err)


def test_weights_of_another_shape_are_one_line(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 30}))
    sentence = "have other shapes than its config.json says; download it again"
    assert hsd("generate", "-t", folder, "a") == (1, "", f"hsd: the weights of {folder!r} {sentence}\n")


def test_without_bos_eos_and_pad_tokens_an_empty_message_has_something_to_read(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, chat_template="{{ messages[0]['content'].strip() }}")
    result = hsd("generate", "-q", "-t", folder, "-n", 2, " ")
    assert (result.code, result.err) == (0, "")
