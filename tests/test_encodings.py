"""Text in another encoding than UTF-8 is read by its byte order mark, wherever text comes from."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hsd_cli.batch.pipe import PipeLines
from hsd_cli.batch.sources import opened
from hsd_cli.errors import HsdError
from tests.cli import hsd, shell_hsd

ENCODINGS = {
    "UTF-8": (codecs.BOM_UTF8, "utf-8"),
    "UTF-16 little": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "UTF-16 big": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "UTF-32 little": (codecs.BOM_UTF32_LE, "utf-32-le"),
    "UTF-32 big": (codecs.BOM_UTF32_BE, "utf-32-be"),
}
RECORDS = '{"prompt": "abc", "id": "\u010a\u2028😀"}\n\n{"prompt": "xyz"}\n{"prompt": "k"}'  # Ċ has a line end's byte
IDS = ["\u010a\u2028😀", 3, 4]


@pytest.fixture(params=ENCODINGS.values(), ids=ENCODINGS.keys())
def encoded(request: pytest.FixtureRequest) -> Callable[[str], bytes]:
    mark, encoding = request.param
    return lambda text: mark + text.encode(encoding)


def test_a_prompt_from_a_file_and_from_standard_input(
    letters: str, encoded: Callable[[str], bytes], tmp_path: Path
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(encoded("abc"))
    command = ["generate", "--json", "--raw", "--strict", "-n", 3, "-t", letters]
    for result in (hsd(*command, "-f", file), hsd(*command, "-", stdin=encoded("abc"))):
        assert (result.code, result.err) == (0, "")
        assert (json.loads(result.out)["prompt_tokens"], json.loads(result.out)["text"]) == (3, "def")


def test_files_with_a_text_each(letters: str, encoded: Callable[[str], bytes], tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_bytes(encoded("abc"))
    command = ["generate", "-q", "--raw", "--strict", "-n", 3, "-t", letters, "--beside", "-f", tmp_path / "one.txt"]
    assert hsd(*command).code == 0
    assert (tmp_path / "one.txt.out").read_text() == "def"


def test_records(letters: str, encoded: Callable[[str], bytes], tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(encoded(RECORDS))
    command = ["generate", "-q", "--raw", "-n", 3, "-t", letters, "-i"]
    for result in (hsd(*command, source), hsd(*command, "-", stdin=encoded(RECORDS))):
        assert result.code == 0
        assert [json.loads(line)["id"] for line in result.out.splitlines()] == IDS


@pytest.mark.parametrize("size", [1, 3, 4, 1000])
def test_records_that_come_in_pieces(encoded: Callable[[str], bytes], size: int) -> None:
    reading, writing = os.pipe()
    lines = PipeLines(reading, "-")
    found: list[bytes] = []
    data = encoded(RECORDS)
    for start in range(0, len(data), size):
        os.write(writing, data[start : start + size])
        while lines.ready():
            found.append(next(iter(lines)))
    os.close(writing)
    found += lines
    os.close(reading)
    assert b"".join(found).decode("utf-8-sig").strip() == RECORDS
    assert found[-1] == b'{"prompt": "k"}'


def test_a_mark_that_is_wrong_is_one_line(letters: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(codecs.BOM_UTF16_LE + '{"prompt": "abc"}\n'.encode("utf-16-le") + b"\x00\xd8\n\n")
    said = "hsd: the records are not the UTF-16 that their byte order mark says; convert them to UTF-8\n"
    for result in (
        hsd("generate", "--raw", "-n", 3, "-t", letters, "-i", source),
        shell_hsd("generate", "--raw", "-n", "3", "-t", letters, "-i", "-", stdin=source.read_bytes()),
    ):
        assert (result.code, result.err.splitlines(True)[-1]) == (1, said)
    with opened(str(source)) as records, pytest.raises(HsdError, match="convert them to UTF-8"):
        list(records.lines())


def test_a_prompt_whose_mark_is_wrong_is_one_line(letters: str) -> None:
    result = hsd("generate", "--strict", "-t", letters, "-", stdin=codecs.BOM_UTF16_LE + b"abc")
    said = "hsd: the prompt is not valid UTF-8; convert it, as with iconv, or leave --strict out\n"
    assert (result.code, result.out, result.err) == (1, "", said)
