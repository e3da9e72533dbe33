"""Records from a pipe: texts are written while the next record is waited for, and one that comes joins them at once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any, NamedTuple

import pytest

from hsd_cli.batch.pipe import CHUNK, PipeLines
from hsd_cli.errors import HsdError
from tests.cli import hsd
from tests.forks import LIMIT, PipedFork

LONG = {"id": "long", "prompt": "a", "max_new_tokens": 1900}  # takes seconds
SHORT = {"prompt": "k", "max_new_tokens": 3}


class Pipe(NamedTuple):
    """Both ends, and the lines that come out."""

    given: int
    taken: int
    lines: PipeLines


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    taken, given = os.pipe()
    yield Pipe(given, taken, PipeLines(taken, "-"))
    os.close(taken)


def started(model: str, size: int, *more: object) -> PipedFork:
    return PipedFork("generate", "-t", model, "-a", "ar", "-i", "-", "--batch-size", size, *more)


def give(running: PipedFork, *records: dict[str, Any]) -> None:
    running.stdin.write("".join(json.dumps(record) + "\n" for record in records).encode())
    running.stdin.flush()


def taken(running: PipedFork) -> tuple[Any, str]:
    """The next result on standard output."""
    result = json.loads(running.stdout.readline())
    return result["id"], result["text"]


def wait_for(output: Path, count: int) -> list[Any]:
    """The ids in the file of results, once there are so many."""
    deadline = monotonic() + LIMIT
    while not output.exists() or output.read_bytes().count(b"\n") < count:
        assert monotonic() < deadline
        sleep(0.002)
    return [json.loads(line)["id"] for line in output.read_text().splitlines()]


# The command


@pytest.mark.parametrize("size", [1, 3])
def test_a_result_does_not_wait_for_the_next_record(letters: str, tmp_path: Path, size: int) -> None:
    output = tmp_path / "out.jsonl"
    with started(letters, size, "-q") as printing, started(letters, size, "-q", "-o", output) as keeping:
        for number in (1, 2):
            give(printing, SHORT)
            assert taken(printing) == (number, "lmn")
            give(keeping, SHORT)
            assert wait_for(output, number) == list(range(1, number + 1))
        printing.stdin.close()
        keeping.stdin.close()
    assert (printing.returncode, keeping.returncode) == (0, 0)


def test_a_record_that_comes_late_joins_those_that_are_being_written(letters: str) -> None:
    with started(letters, 3, "-q") as running:
        give(running, LONG, SHORT)
        assert taken(running) == (2, "lmn")
        give(running, SHORT)
        assert taken(running) == (3, "lmn")
        running.stdin.write(b'\n\n{"prompt": ')  # neither blank lines nor half a record hold up the others
        running.stdin.flush()
        assert taken(running)[0] == "long"
        running.stdin.write(b'"x"}')
        running.stdin.close()
        assert taken(running)[0] == 6
    assert running.returncode == 0


def test_the_end_of_the_input_ends_no_text(letters: str) -> None:
    with started(letters, 2) as running:
        give(running, LONG, SHORT)
        assert taken(running) == (2, "lmn")
        running.stdin.close()
        name, text = taken(running)
        assert (name, len(text)) == ("long", LONG["max_new_tokens"])
        assert running.stderr.read().startswith(b"hsd: 2 texts")
    assert running.returncode == 0


def test_ctrl_c_keeps_what_is_there_and_the_same_command_goes_on(letters: str, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with started(letters, 3, "-o", output) as running:
        give(running, LONG, SHORT)
        assert wait_for(output, 1) == [2]
        running.send_signal(signal.SIGINT)
        assert running.stderr.read() == b"hsd: stopped after 1; the same command continues\n"
    assert running.returncode == 130
    arguments = ["generate", "-t", letters, "-a", "ar", "--batch-size", 3, "-i", "-", "-o", output]
    records = [json.dumps(record).encode() + b"\n" for record in (LONG, SHORT)]
    done = hsd(*arguments, stdin=b"".join(records))
    assert done.code == 0
    assert "hsd: 1 text · 1 were done before" in done.err
    assert wait_for(output, 2) == [2, "long"]


def test_results_of_other_records_are_refused_before_anything_is_written(letters: str, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with started(letters, 2, "-o", output) as running:
        give(running, SHORT)
        running.stdin.close()
    before = output.read_bytes()
    with started(letters, 2, "-o", output) as running:
        give(running, {"id": "new", "prompt": "a"}, {"id": "newer", "prompt": "a"})
        running.stdin.close()
        assert b"has record 1, which is not in the input; give another -o" in running.stderr.read()
    assert (running.returncode, output.read_bytes()) == (1, before)


# The lines


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["cut", "whole"])
def test_lines_are_those_of_a_file(pipe: Pipe, end: bytes) -> None:
    data = b"a\n\nb\r\x0bc\r\n\xff\n" + b"d" * 3 * CHUNK + b"\n\n\ne" + end

    def give_all() -> None:
        with os.fdopen(pipe.given, "wb") as file:
            file.write(data)

    giving = Thread(target=give_all)
    giving.start()
    assert list(pipe.lines) == list(BytesIO(data))
    giving.join()
    assert pipe.lines.ready()


def test_a_line_is_ready_when_it_is_whole_and_says_something(pipe: Pipe) -> None:
    assert not pipe.lines.ready()
    for piece, ready in [(b"\n \t\n", False), (b"a", False), (b"b\nc", True)]:
        os.write(pipe.given, piece)
        assert pipe.lines.ready() == ready
    lines = iter(pipe.lines)
    assert [next(lines) for _ in range(3)] == [b"\n", b" \t\n", b"ab\n"]
    assert not pipe.lines.ready()
    os.close(pipe.given)
    assert pipe.lines.ready()
    assert list(lines) == [b"c"]
    assert pipe.lines.ready()


def test_no_more_than_a_chunk_is_read_ahead(pipe: Pipe) -> None:
    line = b"a" * 999 + b"\n"
    os.set_blocking(pipe.given, False)

    def given() -> int:
        """Bytes until the pipe is full."""
        count = 0
        with suppress(BlockingIOError):
            while True:
                count += os.write(pipe.given, line)
        return count

    given()
    for _ in range(3):
        assert pipe.lines.ready()
    assert given() <= CHUNK
    assert next(iter(pipe.lines)) == line
    assert given() == 0
    os.close(pipe.given)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    lines = PipeLines(folder, "in.jsonl")
    for asking in (lines.ready, lambda: next(iter(lines))):
        with pytest.raises(HsdError, match=r"cannot read 'in\.jsonl': Is a directory"):
            asking()
    os.close(folder)


def test_a_named_pipe_is_a_pipe(letters: str, tmp_path: Path) -> None:
    source = tmp_path / "pipe"
    os.mkfifo(source)
    with PipedFork("generate", "-q", "-t", letters, "-i", source) as running:
        with source.open("wb") as file:
            for number in (1, 2):
                file.write(json.dumps(SHORT).encode() + b"\n")
                file.flush()
                assert taken(running) == (number, "lmn")
        assert running.stderr.read() == b""
    assert running.returncode == 0
