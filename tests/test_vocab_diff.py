"""``hsd vocab-diff``: reading tokenizers from anywhere, the report, and its three kinds of output."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from tokenizers import Tokenizer
from typer.testing import CliRunner, Result

from hsd_cli.commands.vocab_diff import vocab_diff
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.ui.terminal import escape
from hsd_cli.vocab.report import MOSTLY_SHARED, compare, sample_text, share_of_text, token_class
from hsd_cli.vocab.source import read_vocabulary
from tests import tiny
from tests.tokenizer_families import (
    byte_level_bpe,
    byte_model,
    characters,
    describe,
    metaspace_bpe,
    unigram,
    vocabulary,
    write_rank_file,
)

app = typer.Typer()
app.command()(vocab_diff)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def save(tokenizer: Tokenizer, folder: Path, **configuration: Any) -> Path:
    """A model folder with ``tokenizer.json`` and, for ``config={...}``, a ``config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in configuration.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A byte-level target and a SentencePiece drafter."""
    return save(byte_level_bpe(), tmp_path / "target"), save(metaspace_bpe(), tmp_path / "drafter")


# Where vocabularies come from


def test_a_folder_and_its_file_are_the_same_vocabulary(pair: tuple[Path, Path]) -> None:
    folder, _ = pair
    assert read_vocabulary(str(folder)).fingerprint == read_vocabulary(str(folder / "tokenizer.json")).fingerprint


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ({"config": {"eos_token_id": 2}}, (2,)),
        ({"config": {"eos_token_id": [2, 1]}}, (2, 1)),
        ({"config": {"eos_token_id": 1}, "generation_config": {"eos_token_id": [2]}}, (2,)),
        ({"config": {"eos_token_id": None}, "tokenizer_config": {"eos_token": "</s>"}}, (2,)),
        ({"config": {"text_config": {"eos_token_id": 1}}}, (1,)),
        ({"tokenizer_config": {"eos_token": {"content": "</s>"}}}, (2,)),
        ({"config": {"eos_token_id": [2, 100_000]}}, (2,)),  # an id past the tokenizer is of no use
        ({}, (2,)),  # by its usual name
    ],
)
def test_end_of_text_comes_from_the_configuration(
    tmp_path: Path, configuration: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert read_vocabulary(str(save(metaspace_bpe(), tmp_path, **configuration))).eos_ids == expected


def test_a_lone_file_does_not_use_the_configuration_next_to_it(tmp_path: Path) -> None:
    save(byte_model(), tmp_path, config={"eos_token_id": 1})
    byte_level_bpe().save(str(tmp_path / "other.json"))
    assert read_vocabulary(str(tmp_path / "other.json")).eos_ids == (0,)


@pytest.mark.parametrize("name", ["model.tiktoken", "tokenizer.model"])
def test_a_folder_may_have_a_rank_file_instead(tmp_path: Path, name: str) -> None:
    write_rank_file(byte_model(), tmp_path / name)
    assert read_vocabulary(str(tmp_path)).token_bytes == vocabulary(byte_model()).token_bytes


def test_older_formats_are_converted_by_transformers(tmp_path: Path) -> None:
    model = describe(byte_level_bpe())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(map(" ".join, model["merges"])))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "eos_token_id": 0}')
    converted = read_vocabulary(str(tmp_path))
    assert converted.token_bytes == vocabulary(byte_level_bpe()).token_bytes
    assert converted.eos_ids == (0,)


def test_the_embedded_models_have_names() -> None:
    assert len(read_vocabulary("embedded:target")) > 256
    with pytest.raises(HsdError, match="embedded:target"):
        read_vocabulary("embedded:nothing")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no tokenizer files"),
        ({"tokenizer.json": "{"}, "cannot read"),
        ({"tokenizer.json": "[]"}, "cannot read"),
        ({"tokenizer.json": '{"model": {}}'}, "cannot read"),
        (
            {"tokenizer.json": '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a \\u001b"]}}'},
            "cannot read a tokenizer",
        ),
        ({"tokenizer.json": '{"model": {"vocab": {"a": 0}}, "decoder": {"type": "\\u001b[31m"}}'}, "not supported"),
        ({"tokenizer.model": "no SentencePiece model"}, "cannot read"),
    ],
)
def test_bad_files_give_one_line(tmp_path: Path, files: dict[str, str], says: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(HsdError, match=says) as failure:
        read_vocabulary(str(tmp_path))
    assert str(failure.value).isprintable()


@pytest.mark.parametrize("source", ["./nowhere", "/no/such/folder", "missing/tokenizer.json"])
def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(source: str) -> None:
    with pytest.raises(HsdError, match="no file or folder"):
        read_vocabulary(source)


# What the report says


def test_the_sample_covers_the_domains_people_generate_in() -> None:
    classes = {token_class(word.encode()) for word in [*sample_text().split(), "  "]}
    assert classes == {
        "whitespace", "digits", "punctuation and symbols", "Latin words", "CJK", "other scripts"
    }  # fmt: skip
    assert "\n    " in sample_text()
    assert "\n\t" in sample_text()


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (b"\n    ", "whitespace"),
        (b" 2024", "digits"),
        ("٣".encode(), "digits"),
        (b" !=", "punctuation and symbols"),
        ("🎉".encode(), "punctuation and symbols"),
        (b" the", "Latin words"),
        ("été".encode(), "Latin words"),
        ("日本".encode(), "CJK"),
        ("한국".encode(), "CJK"),
        ("привет".encode(), "other scripts"),
        ("ि".encode(), "other scripts"),
        (b"\xe6\x97", "pieces of characters"),
        (None, "special tokens"),
    ],
)
def test_tokens_have_classes(token: bytes | None, expected: str) -> None:
    assert token_class(token) == expected


def test_share_of_text_counts_the_target_s_tokens() -> None:
    target, drafter = vocabulary(byte_level_bpe()), vocabulary(byte_model())
    text = "the cat 7"  # "the", " cat", " " and "7" or " 7"
    ids = target.encode(text.encode())
    shared = [index for index in ids if len(target.token_bytes[index] or b"") == 1]
    assert 0 < len(shared) < len(ids)
    assert share_of_text(target, drafter, text) == len(shared) / len(ids)
    assert share_of_text(drafter, target, text) == 1.0
    assert share_of_text(target, drafter, "") == 0.0


def test_shared_and_missing_tokens_add_up() -> None:
    target, drafter = vocabulary(byte_level_bpe(), "<|endoftext|>"), vocabulary(unigram(), "</s>")
    report = compare(target, drafter, sample_text())
    for side, size in ((report.a, len(target)), (report.b, len(drafter))):
        missing = [index for members in side.missing.values() for index in members]
        assert sorted([*missing, *side.shared]) == list(range(size))
        assert side.tokens == size


def test_bytes_per_token_are_measured_on_the_text() -> None:
    report = compare(vocabulary(byte_model()), vocabulary(byte_level_bpe()), "the cat the cat")
    assert report.a.bytes_per_token == 1
    assert report.b.bytes_per_token == 15 / 4


def test_holes_are_not_tokens() -> None:
    description = describe(byte_level_bpe())
    description["model"]["vocab"]["!!!"] = 1000
    target = type(vocabulary(byte_model()))(description)
    assert compare(target, vocabulary(byte_model()), "text").a.tokens == len(description["model"]["vocab"])


def test_verdict_same_vocabulary() -> None:
    report = compare(vocabulary(byte_level_bpe()), vocabulary(byte_level_bpe()), sample_text())
    assert report.same
    assert report.verdict.algorithms == ("sd",)
    assert report.a.missing == report.b.missing == {}


def test_verdict_most_of_the_text_is_shared() -> None:
    report = compare(vocabulary(byte_model()), vocabulary(byte_level_bpe()), sample_text())
    assert report.a.share_of_text >= MOSTLY_SHARED
    assert report.verdict.algorithms == ("tli", "slrs", "slem", "union")
    assert "100%" in report.verdict.reason


def test_verdict_little_of_the_text_is_shared() -> None:
    report = compare(vocabulary(byte_level_bpe()), vocabulary(characters()), " the the the the")
    assert report.a.share_of_text < MOSTLY_SHARED
    assert report.verdict.algorithms == ("slem", "slrs", "union")
    assert report.verdict.reason.startswith("different vocabularies: slem for greedy text, slrs when sampling")


def test_verdict_nothing_is_shared() -> None:
    report = compare(tiny.vocabulary(["aa", "bb"]), tiny.vocabulary(["a", "b"]), "aabb")
    assert report.a.shared == []
    assert report.verdict.algorithms == ("slem", "slrs")  # union is about shared tokens


# What the command prints


def test_the_table_answers_the_question(pair: tuple[Path, Path]) -> None:
    result = run(*pair)
    assert result.exit_code == 0
    for words in ("byte-level BPE", "SentencePiece BPE", "shared tokens", "share of text", "bytes per token"):
        assert words in result.output
    assert result.output.splitlines()[-1].startswith("different vocabularies: tli")


def test_json_is_one_object(pair: tuple[Path, Path]) -> None:
    target, drafter = map(read_vocabulary, map(str, pair))
    answer = json.loads(run(*pair, "--json").stdout)
    report = compare(target, drafter, sample_text())
    assert answer["a"]["tokens"] == len(target)
    assert answer["a"]["shared"] == len(report.a.shared)
    assert answer["b"]["share_of_text"] == report.b.share_of_text
    assert answer["algorithms"] == list(report.verdict.algorithms)
    for name, ids in report.b.missing.items():
        assert answer["b"]["missing"][name]["count"] == len(ids)


def test_lists_have_one_line_per_token(pair: tuple[Path, Path]) -> None:
    report = compare(*map(read_vocabulary, map(str, pair)), sample_text())
    lines = {only: run(*pair, "--only", only).stdout.split("\n")[:-1] for only in ("a", "b", "both")}
    assert len(lines["a"]) == sum(map(len, report.a.missing.values()))
    assert len(lines["b"]) == sum(map(len, report.b.missing.values()))
    assert len(lines["both"]) == len(report.a.shared)
    assert " the" in lines["both"]
    assert "\\n" in lines["both"]
    assert "\\xff" in lines["both"]
    assert "<s>" in lines["b"]


def test_another_text_changes_the_share(pair: tuple[Path, Path], tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("\n\n    \n")
    answer = json.loads(run(*pair, "--json", "--text", text).stdout)
    assert answer["a"]["share_of_text"] == share_of_text(*map(read_vocabulary, map(str, pair)), text.read_text())
    text.write_bytes(b"")
    with pytest.raises(UsageError, match="empty"):
        run(*pair, "--text", text)
    assert run(*pair, "--text", tmp_path / "nothing").exit_code == 2


def test_the_garbage_collector_runs_again_afterwards(pair: tuple[Path, Path]) -> None:
    run(*pair)
    assert gc.isenabled()


def test_two_kinds_of_output_are_one_too_many(pair: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError):
        run(*pair, "--json", "--only", "a")


def test_a_tokenizer_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    tokenizer = byte_model()
    tokenizer.add_special_tokens(["\x1b]0;title\x07", "[bold red]", "\u202ereversed"])
    evil, plain = save(tokenizer, tmp_path / "evil"), save(byte_model(), tmp_path / "plain")
    for output in (run(plain, evil).output, run(plain, evil, "--only", "b").stdout, run(plain, evil, "--json").stdout):
        assert "[boldred]" in "".join(output.split())  # a narrow table may break the line
        assert "x1b]0;" in output
        assert output.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b" the", " the"),
        ("naïve 日本".encode(), "naïve 日本"),
        (b"\n\t\x00\x1b", r"\n\t\x00\x1b"),
        (b"\\n", r"\\n"),
        (b"\xff\xa0", r"\xff\xa0"),
        ("\u00a0\u200b\u2028".encode(), r"\u00a0\u200b\u2028"),
        ("\U000e0041".encode(), r"\U000e0041"),
    ],
)
def test_escaped_bytes_are_one_printable_line(data: bytes, line: str) -> None:
    assert escape(data) == line


def hsd(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hsd_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def test_the_real_command(pair: tuple[Path, Path]) -> None:
    done = hsd("vocab-diff", *pair, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["same_vocabulary"] is False


def test_a_model_that_cannot_be_downloaded_is_one_line_on_stderr(pair: tuple[Path, Path], tmp_path: Path) -> None:
    done = hsd("vocab-diff", pair[0], "nobody/nothing", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("hsd: 'nobody/nothing'")
    assert done.stderr.count("\n") == 1


def test_neither_torch_nor_transformers_is_needed(pair: tuple[Path, Path]) -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "import typer; from hsd_cli.commands.vocab_diff import vocab_diff\n"
        "app = typer.Typer(); app.command()(vocab_diff); app()"
    )
    command = [sys.executable, "-c", script, *map(str, pair)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
