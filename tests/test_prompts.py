"""Prompts of every kind, through the command: blank, odd bytes, line ends, special tokens, far too long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli import checkpoint, hsd

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


def test_a_prompt_of_megabytes_is_refused_in_one_line(model: str, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"abc\n" * 500_000)
    result = hsd("generate", "-t", model, "-f", file)
    assert (result.code, result.out) == (1, "")
    assert result.err == "hsd: the prompt has 2000000 tokens and the target's context holds 32; shorten it\n"
