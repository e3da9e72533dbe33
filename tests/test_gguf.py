"""GGUF files as targets and drafters, made of checkpoints and compared with them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.breadth import breadth, thorough
from tests.cli import hsd

pytest.importorskip("gguf", reason="needs hsd-cli[gguf]")

import torch
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM, Gemma2Config, Phi3Config, PreTrainedConfig, Qwen2Config, Qwen3Config

from hsd_cli.models.gguf import model_folder
from hsd_cli.models.locate import EMBEDDED_FOLDER
from hsd_cli.runtime.dense import dense_decoder
from hsd_cli.runtime.loading import load_model
from hsd_cli.vocab.source import read_vocabulary
from hsd_cli.vocab.tokenizer import ModelTokenizer
from tests.gguf_files import gguf_of

PROMPT = "class Stack:\n    def __init__(self"
TEXTS = ["import os", "  if x == 10:\n\treturn 'é ✓ 漢'\n", "", " a", "<|endoftext|>x", "naïve  spaces   "]
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rope_theta": 5000.0, "initializer_range": 0.4,
}  # fmt: skip
BYTE_LEVEL = {"vocab_size": 4096, "bos_token_id": 0, "eos_token_id": 0}  # the embedded target's tokenizer
SPELLED = {"vocab_size": 3072, "bos_token_id": 1, "eos_token_id": 2}  # the embedded drafter's
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    return {name: gguf_of(EMBEDDED_FOLDER / name, folder / f"{name}.gguf") for name in ("target", "drafter")}


def logits(name: str | Path) -> torch.Tensor:
    model = load_model(str(name), "cpu", "float32", packed=False).model
    with torch.inference_mode():
        return model(input_ids=torch.arange(5, 45)[None]).logits


def greedy(name: str | Path) -> list[int]:
    """24 tokens after some."""
    model = load_model(str(name), "cpu", "float32").model
    ids = torch.arange(5, 45)[None]
    written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    return written[0, 40:].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", breadth(["target", "drafter"], quick=["drafter"]))
def test_a_float32_file_is_the_model_that_it_was_made_of(files: dict[str, Path], name: str) -> None:
    assert torch.equal(logits(files[name]), logits(EMBEDDED_FOLDER / name))
    loaded = load_model(str(files[name]), "cpu", "float32")
    assert loaded.eos_ids == load_model(f"embedded:{name}", "cpu", "float32").eos_ids
    assert dense_decoder(loaded.model) is not None


@pytest.mark.parametrize("name", ["target", "drafter"])
def test_the_tokenizer_is_the_original_one(files: dict[str, Path], name: str) -> None:
    original = ModelTokenizer.load(f"embedded:{name}")
    read = ModelTokenizer.load(str(files[name]))
    assert read.vocabulary.token_bytes == original.vocabulary.token_bytes
    assert read_vocabulary(str(files[name])).token_bytes == original.vocabulary.token_bytes
    for text in TEXTS:
        assert read.render(text) == original.render(text)


@pytest.mark.parametrize(
    ("kind", "tolerance"), [(GGMLQuantizationType.F16, 0.1), (GGMLQuantizationType.Q8_0, 0.5)], ids=["F16", "Q8_0"]
)
def test_packed_weights_are_unpacked(kind: GGMLQuantizationType, tolerance: float, tmp_path: Path) -> None:
    exact = logits("embedded:target")
    difference = (logits(gguf_of(EMBEDDED_FOLDER / "target", tmp_path / "x.gguf", kind)) - exact).abs().max().item()
    assert 0 <= difference < tolerance


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**SMALL, **BYTE_LEVEL, tie_word_embeddings=False),
        Qwen3Config(**SMALL, **BYTE_LEVEL, tie_word_embeddings=False, head_dim=24),
        Phi3Config(**SMALL, **SPELLED, pad_token_id=0),
        Phi3Config(**SMALL, **SPELLED, pad_token_id=0, sliding_window=7),
        Gemma2Config(**SMALL, **SPELLED, head_dim=24, sliding_window=7, final_logit_softcapping=20.0),
    ],
    ids=["qwen2", "qwen3", "phi3", "phi3 with a window", "gemma2"],
)
def test_other_kinds_are_the_models_that_they_were_made_of(config: PreTrainedConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, weights in model.named_parameters():
        if "norm" in name or name.endswith("bias"):  # which begin as ones and zeros
            torch.nn.init.normal_(weights)
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    tokenizer = EMBEDDED_FOLDER / ("target" if config.vocab_size == BYTE_LEVEL["vocab_size"] else "drafter")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((tokenizer / file).read_bytes())
    made = gguf_of(folder, tmp_path / "x.gguf")
    assert torch.equal(logits(made), logits(folder))
    written = greedy(made)
    assert written == greedy(folder)
    assert len(set(written)) > 3 or config.tie_word_embeddings  # with random ones each token writes itself
    if config.model_type != "gemma2":  # whose tokenizers put no space before a text, as this one does
        read, original = (ModelTokenizer.load(str(source)) for source in (made, folder))
        assert [read.render(text) for text in TEXTS] == [original.render(text) for text in TEXTS]


def test_the_command_writes_the_same_text_with_files(files: dict[str, Path]) -> None:
    common = ("-n", 24, "--json", "-a", "slem", PROMPT)
    expected = json.loads(hsd("generate", "-t", "embedded:target", "-d", "embedded:drafter", *common).out)
    written = hsd("generate", "-t", files["target"], "-d", files["drafter"], *common)
    assert (written.code, written.err) == (0, "")
    found = json.loads(written.out)
    keys = ("text", "token_ids", "accepted_tokens")
    assert [found.get(key) for key in keys] == [expected.get(key) for key in keys]


def test_other_commands_read_them(files: dict[str, Path]) -> None:
    for command in ("plan", "vocab-diff"):
        read = json.loads(hsd(command, files["target"], files["drafter"], "--json").out)
        known = json.loads(hsd(command, "embedded:target", "embedded:drafter", "--json").out)
        figures = [
            [found.get("a", {}).get("share_of_text"), found.get("target", {}).get("parameters")]
            for found in (read, known)
        ]
        assert figures[0] == figures[1] != [None, None]


def test_a_file_is_known_by_its_beginning(files: dict[str, Path], tmp_path: Path) -> None:
    blob = tmp_path / "sha256-0123"
    blob.symlink_to(files["drafter"])
    assert hsd("generate", "-q", "-t", blob, "-n", 2, "x").code == 0


def test_the_chat_template_and_more_than_one_end(tmp_path: Path) -> None:
    metadata = {"tokenizer.chat_template": TEMPLATE, "tokenizer.ggml.eot_token_id": 7}
    made = gguf_of(EMBEDDED_FOLDER / "drafter", tmp_path / "x.gguf", **metadata)
    assert ModelTokenizer.load(str(made)).render("hi", chat=True).text == "<user>hi"
    assert load_model(str(made), "cpu").eos_ids == (2, 7)


def test_without_a_space_before_each_text(tmp_path: Path) -> None:
    metadata = {"tokenizer.ggml.add_space_prefix": False}
    tokenizer = ModelTokenizer.load(str(gguf_of(EMBEDDED_FOLDER / "drafter", tmp_path / "x.gguf", **metadata)))
    ids = tokenizer.render("import").ids
    assert b"".join(tokenizer.vocabulary.token_bytes[i] or b"" for i in ids) == b"import"
    assert not tokenizer.adds_dummy_space


def test_scaled_positions_are_kept(tmp_path: Path) -> None:
    made = gguf_of(EMBEDDED_FOLDER / "drafter", tmp_path / "x.gguf", **{"llama.rope.scaling.type": "linear"} | {
        "llama.rope.scaling.factor": 4})  # fmt: skip
    scaled = load_model(str(made), "cpu").model.model.rotary_emb.inv_freq
    assert torch.allclose(scaled * 4, load_model("embedded:drafter", "cpu").model.model.rotary_emb.inv_freq)


def test_the_frequencies_of_llama_3_are_kept(tmp_path: Path) -> None:
    divisors = [1.0] * 8 + [8.0] * 8
    made = gguf_of(EMBEDDED_FOLDER / "drafter", tmp_path / "x.gguf", divisors=divisors)
    found = load_model(str(made), "cpu").model.model.rotary_emb.inv_freq
    plain = load_model("embedded:drafter", "cpu").model.model.rotary_emb.inv_freq
    assert torch.allclose(found * torch.tensor(divisors), plain)


@thorough
def test_quantized_on_the_fly(files: dict[str, Path]) -> None:
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    common = ("-n", 8, "-q", "--quant", "int8", "-a", "ar", PROMPT)
    assert hsd("generate", "-t", files["target"], *common) == hsd("generate", "-t", "embedded:target", *common)


# What is refused, in one line


def assert_one_line(path: Path, sentence: str) -> None:
    for command in (["generate", "-t", path, "x"], ["vocab-diff", path, "embedded:drafter"]):
        result = hsd(*command)
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith("hsd: ")
        assert sentence in result.err
        assert result.err.count("\n") == 1


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01, 0.05, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off(files: dict[str, Path], share: float, tmp_path: Path) -> None:
    data = files["drafter"].read_bytes()
    (tmp_path / "x.gguf").write_bytes(data[: int(len(data) * share)])
    assert_one_line(tmp_path / "x.gguf", "x.gguf' is damaged or cut off")


@pytest.mark.parametrize("place", [4, 8, 16, 24, 32, 44, 60])
def test_lengths_that_are_wrong(files: dict[str, Path], place: int, tmp_path: Path) -> None:
    data = bytearray(files["drafter"].read_bytes())
    data[place : place + 8] = struct.pack("<Q", 1 << 60)
    (tmp_path / "x.gguf").write_bytes(data)
    assert_one_line(tmp_path / "x.gguf", "x.gguf'")


def test_export_is_for_other_formats(files: dict[str, Path]) -> None:
    result = hsd("export", "-t", files["target"], "-d", files["drafter"], "--engine", "vllm")
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert "is a GGUF file" in result.err


def test_kinds_of_models_that_the_library_cannot_read(tmp_path: Path) -> None:
    data = gguf_of(EMBEDDED_FOLDER / "drafter", tmp_path / "x.gguf").read_bytes()
    (tmp_path / "x.gguf").write_bytes(data.replace(b"llama", b"lamma"))
    assert_one_line(tmp_path / "x.gguf", "is a lamma model, which transformers does not read from GGUF")


def test_weights_that_would_be_dropped(tmp_path: Path) -> None:
    data = gguf_of(EMBEDDED_FOLDER / "drafter", tmp_path / "x.gguf").read_bytes()
    (tmp_path / "x.gguf").write_bytes(data.replace(b"blk.0.attn_norm", b"blk.0.attn_born"))
    result = hsd("generate", "-t", tmp_path / "x.gguf", "x")
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert "no place for (blk.0.attn_born.weight)" in result.err


def test_a_missing_package_is_named(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSD_CACHE", str(tmp_path))
    monkeypatch.setattr("hsd_cli.models.gguf_header.find_spec", lambda name: None)
    assert_one_line(files["drafter"], "run: pip install 'hsd-cli[gguf]'")


def test_a_way_to_cut_words_that_is_not_known(tmp_path: Path) -> None:
    ways = {"tokenizer.ggml.pre": "brand-new"}
    file = gguf_of(EMBEDDED_FOLDER / "target", tmp_path / "x.gguf", **ways)
    command = ["generate", "--raw", "--no-stats", "-a", "ar", "-t", file, "-n", 2, "x"]
    first, second = hsd(*command), hsd(*command)
    said = "cuts words in a way that hsd does not know (tokenizer.ggml.pre is 'brand-new')"
    assert said in first.err
    assert said in second.err  # at each run
    assert hsd(*command, "-q").err == ""


def test_the_first_time_it_is_said_what_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsd_cli.models.gguf.MANY", 3000)
    file = gguf_of(EMBEDDED_FOLDER / "drafter", tmp_path / "x.gguf")
    command = ["generate", "--raw", "--no-stats", "-a", "ar", "-t", file, "-n", 2, "x"]
    said = f"hsd: reading the tokenizer of {file}, which is done once\n"
    assert [hsd(*command).err for _ in range(2)] == [said, ""]


def test_it_is_described_once(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(files["drafter"])
    monkeypatch.setattr("hsd_cli.models.gguf._describe", None)
    assert model_folder(files["drafter"]) == folder
