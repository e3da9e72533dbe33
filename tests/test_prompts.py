"""Prompts of every kind, through the command: blank, odd bytes, line ends, special tokens, far too long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from tests.cli import checkpoint, hsd
from tests.test_caches_between_texts import TEMPLATE

TOKENS = ["a", "b", "c", "\n", " ", "\r", "\x00", "<end>"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("model"), TOKENS, context=32, special=["<end>"])


def tokens(model: str, content: bytes, tmp_path: Path) -> int:
    """How many of them the model reads of a file; it writes one."""
    file = tmp_path / "prompt"
    file.write_bytes(content)
    result = hsd("generate", "--json", "-t", model, "-n", 1, "-f", file)
    assert (result.code, result.err) == (0, "")
    return int(json.loads(result.out)["prompt_tokens"])


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (b" \n ", 3),
        (b"\n", 1),
        (b"<end>", 1),
        (b"<end><end>", 2),
        (b"a\x00b", 3),
        (b"a\r\nb\r\n", 6),  # line ends are the user's
        (b"\xef\xbb\xbfab", 2),  # a byte order mark is not
        (b"ab\xef\xbb\xbf", 3),  # but where it marks nothing
    ],
)
def test_odd_prompts_are_read_as_they_are(model: str, content: bytes, count: int, tmp_path: Path) -> None:
    assert tokens(model, content, tmp_path) == count


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"], ids=["nothing", "only a mark"])
def test_an_empty_prompt_is_a_usage_error(model: str, content: bytes) -> None:
    result = hsd("generate", "-t", model, "-", stdin=content)
    assert (result.code, result.out) == (2, "")
    assert result.err == "hsd: the prompt is empty; give it as an argument, with --file, or on standard input\n"


def test_bytes_that_are_no_text_are_replaced_and_that_is_said_once(model: str) -> None:
    result = hsd("generate", "--no-stats", "-t", model, "-n", 1, "-", stdin=b"\xff\xfea\x80b")
    assert (result.code, result.out) == (0, "c")
    assert result.err == "hsd: the prompt is not valid UTF-8; what cannot be read is replaced by \ufffd\n"


def test_bytes_that_are_no_text_are_refused_with_strict(model: str, tmp_path: Path) -> None:
    refusal = "not valid UTF-8; convert it, as with iconv, or leave --strict out\n"
    file = tmp_path / "latin"
    file.write_bytes(b"a\xe4b")
    command = ("generate", "--strict", "-t", model, "-n", 1)
    assert hsd(*command, "-", stdin=b"a\xffb") == (1, "", f"hsd: the prompt is {refusal}")
    assert hsd(*command, "-f", file) == (1, "", f"hsd: the prompt is {refusal}")
    each = hsd(*command, "--no-stats", "-f", file, "--template", "{text}")
    assert (each.code, each.out) == (1, "")
    assert f"hsd: {file}: {refusal}" in each.err
    chat = hsd("chat", "--strict", "-q", "-t", model, stdin=b"a\xffb\n")
    assert (chat.code, chat.out) == (1, "")
    assert chat.err == f"hsd: the line is {refusal}"
    assert hsd(*command, "-q", "-", stdin=b"a").code == 0


def test_each_file_that_is_no_text_is_told_of(model: str, tmp_path: Path) -> None:
    for name, content in {"1": b"a\xffb", "2": b"ab", "3": b"\xe4b"}.items():
        (tmp_path / name).write_bytes(content)
    command = ("generate", "--no-stats", "-t", model, "-n", 1, "-f", tmp_path / "[1-3]", "--template", "{text}")
    done = hsd(*command, "-o", tmp_path / "out")
    assert (done.code, done.out) == (0, "")
    replaced = "not valid UTF-8; what cannot be read is replaced by \ufffd"
    assert done.err == "".join(f"hsd: {tmp_path / name}: {replaced}\n" for name in "13")
    assert hsd(*command, "-q").err == ""


def test_lines_of_a_chat_that_are_no_text_are_told_of_once(model: str) -> None:
    command = ("chat", "--no-stats", "--no-history", "-t", model, "-n", 1)
    done = hsd(*command, stdin=b"a\xffb\nab\n\xff\n")
    assert (done.code, done.out.count("\n")) == (0, 3)
    assert done.err.count("hsd: a line is not valid UTF-8; what cannot be read is replaced by \ufffd\n") == 1
    assert "UTF-8" not in hsd(*command, "-q", stdin=b"a\xffb\n").err


def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all texts that tokenizers are given from now on."""
    lengths: list[int] = []
    call = PreTrainedTokenizerBase.__call__

    def note(tokenizer: PreTrainedTokenizerBase, text: str, **options: object) -> object:
        lengths.append(len(text))
        return call(tokenizer, text, **options)

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", note)
    return lengths


def test_a_prompt_of_megabytes_is_refused_before_it_is_encoded(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"abc\n" * 2_500_000)
    lengths = encoded(monkeypatch)
    reason = "the prompt has 10000000 characters and the target's context holds 32 tokens; shorten it"
    assert hsd("generate", "-t", model, "-f", file) == (1, "", f"hsd: {reason}\n")
    records = tmp_path / "records.jsonl"
    records.write_text(json.dumps({"prompt": file.read_text()}) + "\n")
    assert json.loads(hsd("generate", "-q", "-t", model, "-i", records).out)["error"] == reason
    said = [{"role": "user", "content": file.read_text()[: 1 << 20]}, {"role": "assistant", "content": "a"}] * 5
    records.write_text(json.dumps({"messages": [*said, {"role": "user", "content": "a"}]}) + "\n")
    chatty = checkpoint(tmp_path / "chatty", TOKENS, context=32, chat_template=TEMPLATE)
    refused = json.loads(hsd("generate", "-q", "-t", chatty, "-i", records).out)["error"]
    assert refused == reason.replace("10000000", str(5 * (1 << 20) + 6))
    assert lengths == []
    assert hsd("generate", "-q", "-t", model, "-n", 1, "ab").code == 0
    assert lengths == [2]  # so that they would have been counted


def test_a_prompt_that_may_fit_or_is_short_is_counted_in_tokens(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "the target's context holds 32"
    for length in (160, 500):
        refusal = hsd("generate", "-t", model, "a" * length).err
        assert refusal == f"hsd: the prompt has {length} tokens and {reason}; shorten it\n"
    monkeypatch.setattr("hsd_cli.engine.EASILY_ENCODED", 0)
    assert "160 tokens" in hsd("generate", "-t", model, "a" * 32 * len("<end>")).err
    assert "161 characters" in hsd("generate", "-t", model, "a" * (32 * len("<end>") + 1)).err
    read = hsd("generate", "--json", "-t", model, "-n", 1, "<end>" * 31)
    assert json.loads(read.out)["prompt_tokens"] == 31


def test_texts_of_one_prompt_that_follow_each_other_have_it_encoded_once(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = tmp_path / "records.jsonl"
    prompts = ["abc", "abc", "abc", "ab", "abc"]
    records.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    lengths = encoded(monkeypatch)
    done = hsd("generate", "-q", "-t", model, "-n", 2, "-i", records)
    assert [json.loads(line)["prompt_tokens"] for line in done.out.splitlines()] == [3, 3, 3, 2, 3]
    assert lengths == [3, 2, 3]
