"""What ``tokenizer.json`` says holds, whatever else a checkpoint's files name; what they add is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from tokenizers import Tokenizer, pre_tokenizers, processors

from hsd_cli.models.locate import EMBEDDED_FOLDER
from hsd_cli.vocab.loading import load_tokenizer
from hsd_cli.vocab.source import read_vocabulary
from hsd_cli.vocab.tokenizer import ModelTokenizer
from tests.cli import hsd
from tests.tokenizer_classes import FILES, TEXTS, differences, file_ids
from tests.tokenizer_families import byte_level_bpe, gemma_bpe, sentencepiece_bpe, with_holes

# Classes of the library that make a tokenizer of their own of the file's tokens, and kinds of models with such a class.
REBUILDING = (
    "GPT2Tokenizer", "GPTNeoXTokenizer", "LlamaTokenizer", "CohereTokenizer", "GemmaTokenizer", "Qwen2Tokenizer",
    "WhisperTokenizer", "T5Tokenizer", "XLNetTokenizer", "CodeLlamaTokenizer", "RobertaTokenizer", "BertTokenizer",
)  # fmt: skip
KINDS = ("qwen2", "gpt_neox", "llama", "gemma3_text", "mistral", "t5", "deepseek_v2")


def saved(tokenizer: Tokenizer, folder: Path, **files: dict[str, Any]) -> str:
    """A folder with ``tokenizer.json`` and ``files``."""
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in ({"config": {}} | files).items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return str(folder)


def ids(folder: str, text: str) -> list[int]:
    return ModelTokenizer.load(folder).render(text).ids


def edited(folder: Path, **changes: Any) -> str:
    """A copy of the embedded target with another ``tokenizer.json``: a value, or a function of the one before."""
    copytree(EMBEDDED_FOLDER / "target", folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_bytes())
    for name, change in changes.items():
        content[name] = change(content[name]) if callable(change) else change
    file.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    return str(folder)


# The file and the classes


@pytest.fixture(scope="module", params=FILES)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("file")
    FILES[request.param]().save(str(folder / "tokenizer.json"))
    return folder


def test_there_are_enough_texts() -> None:
    assert len(TEXTS) >= 200


@pytest.mark.parametrize("name", REBUILDING)
def test_a_class_does_not_cut_otherwise(file: Path, name: str) -> None:
    assert differences(file, file_ids(file), {"tokenizer_class": name, "legacy": True}, {}) == []


@pytest.mark.parametrize("kind", KINDS)
def test_nor_does_a_kind_of_model(file: Path, kind: str) -> None:
    assert differences(file, file_ids(file), {"tokenizer_class": "LlamaTokenizer"}, {"model_type": kind}) == []


def test_a_class_that_insists_on_an_unknown_token(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    config = {"tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>"}
    folder = saved(tokenizer, tmp_path, tokenizer_config=config)
    assert ids(folder, "naïve ☃") == tokenizer.encode("naïve ☃").ids


def test_the_command_reads_prompts_as_the_file_says(tmp_path: Path) -> None:
    prompt = "def main():\n    print(2023)\n    return"
    pattern = r"\p{N}{1,3}|[^\r\n\p{L}\p{N}]?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    folder = edited(
        tmp_path / "target",
        pre_tokenizer=lambda before: {"type": "Sequence", "pretokenizers": [split, before | {"use_regex": False}]},
    )
    (tmp_path / "target" / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    found = hsd("generate", "--json", "--raw", "-n", 2, "-a", "ar", "-t", folder, prompt)
    expected = Tokenizer.from_file(f"{folder}/tokenizer.json").encode(prompt).ids
    assert json.loads(found.out)["prompt_tokens"] == len(expected)
    assert ids("embedded:target", prompt) != expected == ids(folder, prompt)


def test_the_decoder_is_the_file_s(tmp_path: Path) -> None:
    folder = saved(gemma_bpe(), tmp_path, tokenizer_config={"tokenizer_class": "LlamaTokenizer"})
    assert not ModelTokenizer.load(folder).adds_dummy_space  # LlamaTokenizer's decoder drops one


def test_prompts_are_neither_cut_off_nor_filled_up(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    whole = tokenizer.encode("the cat sat on the mat").ids
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=100)
    assert ids(saved(tokenizer, tmp_path), "the cat sat on the mat") == whole


# What other files ask for


@pytest.mark.parametrize("asked", [{"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": False}])
@pytest.mark.parametrize("name", ["LlamaTokenizer", "GemmaTokenizer", "PreTrainedTokenizerFast", None])
def test_beside_a_file_the_library_ignores_what_asks_for_marks(
    asked: dict[str, bool], name: str | None, tmp_path: Path
) -> None:
    for number, tokenizer in enumerate((sentencepiece_bpe(), gemma_bpe())):  # one puts <s> in front, one nothing
        config = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": name} | asked
        folder = saved(tokenizer, tmp_path / str(number), tokenizer_config=config)
        assert ids(folder, "the cat") == tokenizer.encode("the cat").ids


def test_tokens_of_other_files_are_kept(tmp_path: Path) -> None:
    listed = {"content": "<tool>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    tokenizer = byte_level_bpe()
    size = tokenizer.get_vocab_size()
    config = {"added_tokens_decoder": {str(size): listed | {"special": False}}, "extra_special_tokens": ["<call>"]}
    folder = saved(tokenizer, tmp_path, tokenizer_config=config | {"tokenizer_class": "GPT2Tokenizer"})
    assert ids(folder, "<tool><call>") == [size, size + 1]
    assert read_vocabulary(folder).token_bytes == ModelTokenizer.load(folder).vocabulary.token_bytes
    assert read_vocabulary(folder).name(size + 1) == "<call>"


def test_what_no_file_names_the_class_names(tmp_path: Path) -> None:
    for number, named in enumerate(({"tokenizer_class": "LlamaTokenizer"}, {})):
        folder = tmp_path / str(number)
        saved(gemma_bpe(), folder, tokenizer_config=named, config={"model_type": "code_llama"})
        read = load_tokenizer(folder, trust_remote_code=False)
        assert (read.bos_token, read.eos_token) == ("<s>", "</s>")
    saved(gemma_bpe(), folder, tokenizer_config={"tokenizer_class": "LlamaTokenizer", "bos_token": None})
    assert load_tokenizer(folder, trust_remote_code=False).bos_token is None  # a file says that there is none


def test_dropout_is_off(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    text = "the cat sat on the mat and the dog ran after the cat"
    expected = tokenizer.encode(text).ids
    tokenizer.model.dropout = 0.9
    folder = saved(tokenizer, tmp_path)
    assert [load_tokenizer(tmp_path, False)(text)["input_ids"] for _ in range(5)] == [expected] * 5
    assert read_vocabulary(folder).encode(text.encode()) == expected


# What is said


def test_of_two_names_the_first_is_written(tmp_path: Path) -> None:
    def doubled(model: dict[str, Any]) -> dict[str, Any]:
        return model | {"vocab": model["vocab"] | {"zzqq": model["vocab"]["Ġself"]}}

    folder = edited(tmp_path / "target", model=doubled)
    vocabularies = [ModelTokenizer(load_tokenizer(Path(folder), False), folder).vocabulary for _ in range(4)]
    vocabularies.append(read_vocabulary(folder))
    original = ModelTokenizer.load("embedded:target").vocabulary
    assert all(vocabulary.token_bytes == original.token_bytes for vocabulary in vocabularies)
    assert all(vocabulary.encode(b" self") == original.encode(b" self") for vocabulary in vocabularies)
    found = hsd("generate", "--raw", "-n", 8, "-a", "ar", "--no-stats", "-t", folder, "class A:\n    def f(")
    assert found.code == 0
    assert (
        found.err
        == f"hsd: the tokenizer of {folder!r} gives one id the names 'Ġself' and 'zzqq': hsd writes the first\n"
    )
    assert hsd("generate", "-q", "--raw", "-n", 8, "-a", "ar", "-t", folder, "class A:\n    def f(") == found._replace(
        err=""
    )


def test_an_end_token_behind_raw_prompts_is_said_once(tmp_path: Path) -> None:
    eos = next(iter(ModelTokenizer.load("embedded:target")._special_tokens))
    append = processors.TemplateProcessing(single=f"$A {eos}", special_tokens=[(eos, 0)])
    folder = edited(tmp_path / "target", post_processor=json.loads(append.__getstate__()))
    records = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ("x", "y", "z"))
    (tmp_path / "records.jsonl").write_text(records)
    many = ["--input", tmp_path / "records.jsonl", "--output", tmp_path / "out.jsonl"]
    for arguments in (["x"], many):
        found = hsd("generate", "--raw", "--no-stats", "-n", 2, "-a", "ar", "-t", folder, *arguments)
        assert found.code == 0
        assert found.err.count(f"puts {eos!r} behind raw prompts") == 1
    assert ids(folder, "x")[-1] == 0  # the file holds
    assert ModelTokenizer.load("embedded:target").notices == []


@pytest.mark.parametrize(
    "make", [lambda: byte_level_bpe(), sentencepiece_bpe, with_holes], ids=["byte-level", "SentencePiece", "with holes"]
)
def test_a_sound_tokenizer_needs_no_word(make: Callable[[], Tokenizer], tmp_path: Path) -> None:
    assert ModelTokenizer.load(saved(make(), tmp_path)).notices == []


def test_both_ways_to_read_a_folder_agree(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    folder = saved(
        tokenizer, tmp_path, tokenizer_config={"tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>"}
    )
    assert read_vocabulary(folder).same_tokens(ModelTokenizer.load(folder).vocabulary)


# What the commands that compare say


def test_two_that_cut_text_at_other_places(tmp_path: Path) -> None:
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}]}

    def apart(before: dict[str, Any]) -> dict[str, Any]:
        return {"type": "Sequence", "pretokenizers": [*digits["pretokenizers"], before]}

    other = edited(tmp_path / "drafter", pre_tokenizer=apart)
    (tmp_path / "numbers.txt").write_text("".join(f"{number} == {number * 7}\n" for number in range(1990, 2030)))
    compared = ["vocab-diff", "embedded:target", other, "--text", tmp_path / "numbers.txt"]
    found = json.loads(hsd(*compared, "--json").out)
    assert (found["same_vocabulary"], found["same_cut"]) == (True, False)
    assert found["a"]["shared_ends"] == 1 > found["b"]["shared_ends"] > 0.5  # each digit ends a token of the drafter's
    assert "but they cut text at other places" in hsd(*compared).out
    same = json.loads(hsd("vocab-diff", "embedded:target", "embedded:target", "--json").out)
    assert (same["same_cut"], same["verdict"].count("cut text")) == (True, 0)


def test_verify_compares_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify = ["verify", "embedded:target", "embedded:drafter", "-a", "slem", "-n", 2, "--samples", 3, "-q"]
    found = json.loads(hsd(*verify, "--json").out)["prompt"]
    assert found["texts"] > 20
    assert (found["other_ids"], found["not_spelled"], found["without_row"], found["rows"]) == (0, 0, 0, 4096)

    from transformers import AutoTokenizer

    def rebuilt(folder: Path, trust_remote_code: bool) -> Any:
        return AutoTokenizer.from_pretrained(folder)

    folder = edited(tmp_path / "target", pre_tokenizer=lambda before: before | {"use_regex": False})
    (tmp_path / "target" / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    monkeypatch.setattr("hsd_cli.vocab.tokenizer.load_tokenizer", rebuilt)  # the library puts its own parts there
    broken = hsd(*verify[:1], folder, *verify[2:])
    assert broken.code == 1
    assert "with other ids than tokenizer.json has" in broken.out
