"""Records and results behind URLs and in Parquet: read as from JSON Lines, kept in files that are whole or missing."""

from __future__ import annotations

import datetime
import json
import os
import signal
from collections import Counter
from pathlib import Path
from random import Random
from time import sleep
from typing import Any

import pytest

from hsd_cli.batch import parts
from hsd_cli.batch.parts import Parts
from hsd_cli.batch.sources import opened
from hsd_cli.errors import HsdError
from tests.breadth import thorough
from tests.cli import checkpoint, hsd
from tests.forks import Fork

pyarrow = pytest.importorskip("pyarrow")

RECORDS = 60
PLACES = ["out.parquet", "file:///out.parquet", "memory://NAME/out.parquet", "memory://NAME/out.jsonl"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("model"), sharpness=3)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where results go that have no lines to be appended to."""
    name: str = request.param
    if name.startswith("memory"):
        return name.replace("NAME", tmp_path.name)
    return name.replace("///", f"//{tmp_path}/") if "://" in name else str(tmp_path / name)


def result(name: object, **fields: object) -> str:
    return json.dumps({"id": name, "line": 1, "text": "t", "fingerprint": "f", "run_seed": 7} | fields) + "\n"


def error(name: object) -> str:
    return json.dumps({"id": name, "line": 2, "error": "why"}) + "\n"


def rows(place: str) -> list[dict[str, Any]]:
    """All results, file by file."""
    from hsd_cli.batch.places import filesystem

    files, folder = filesystem(place)
    found: list[dict[str, Any]] = []
    for name in sorted(files.ls(folder, detail=False)):
        with opened(f"{files.unstrip_protocol(name)}") as part:
            found += [json.loads(line) for line in part.lines()]
    return found


def told_in(lines: str) -> list[list[Any]]:
    return [[json.loads(line).get(key) for key in ("id", "line", "text", "error")] for line in lines.splitlines()]


def parquet(path: Path, records: list[dict[str, Any]]) -> Path:
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(records), path)
    return path


# Records


def test_columns_are_the_fields_of_records(model: str, tmp_path: Path) -> None:
    records = [
        {"id": "a", "prompt": "abc", "messages": None, "max_new_tokens": 3, "temperature": None, "stop": ["d"]},
        {"id": "b", "prompt": None, "messages": [{"role": "user", "content": "x"}], "temperature": 0.5, "stop": None},
        {"id": None, "prompt": "abc", "temperature": -1.0},
    ]
    lines = tmp_path / "in.jsonl"
    lines.write_text("".join(json.dumps(record) + "\n" for record in records))
    arguments = ["generate", "-q", "-t", model, "-n", "5", "--seed", "7", "-i"]
    of_lines, of_rows = (hsd(*arguments, path) for path in (lines, parquet(tmp_path / "in.parquet", records)))
    told = [told_in(done.out) for done in (of_lines, of_rows)]
    assert told[0] == told[1]
    assert [each[:2] for each in told[0]] == [["a", 1], ["b", 2], [3, 3]]
    assert (of_rows.code, of_rows.err) == (of_lines.code, of_lines.err)


def test_the_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "in.parquet"
    folder.mkdir()
    for number in (2, 1, 3):
        parquet(folder / f"part-{number}.parquet", [{"prompt": str(number)}])
    (folder / ".part-4.parquet").write_text("being written")
    with opened(str(folder)) as source:
        for _ in range(2):
            assert [json.loads(line)["prompt"] for line in source.lines()] == ["1", "2", "3"]


@pytest.mark.parametrize("value", [b"abc", datetime.date(2020, 1, 1)], ids=str)
def test_what_json_has_no_word_for_is_no_prompt(model: str, tmp_path: Path, value: object) -> None:
    done = hsd("generate", "-q", "-t", model, "-i", parquet(tmp_path / "in.parquet", [{"prompt": value}]))
    assert json.loads(done.out)["error"] == "prompt must be a string of whole characters that is not empty"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing.parquet", "No such file or directory"),
        ("wrong.parquet", "it is not Parquet"),
        ("memory://missing.jsonl", "missing.jsonl"),
        ("nowhere://a/b.jsonl", "Protocol not known: nowhere"),
    ],
)
def test_records_that_cannot_be_read_are_one_line(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "wrong.parquet").write_text("{}")
    done = hsd("generate", "-i", place if "://" in place else tmp_path / place, "-o", tmp_path / "out.jsonl")
    assert done.err.startswith("hsd: cannot ")
    assert reason in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""


# Results


def test_what_is_in_a_file_is_finished_and_errors_are_tried_again(place: str) -> None:
    with Parts(place) as first:
        for line in (result("a"), error("b"), error(None), result("c", text="é\n")):
            first.append(line)
    with Parts(place) as second:
        assert (second.finished, second.run_seed) == ({"a": "f", "c": "f"}, 7)
        assert len(rows(place)) == 4
        second.repair()
        assert [(row["id"], row["text"]) for row in rows(place)] == [("a", "t"), ("c", "é\n")]
        second.append(result("b"))
    assert Counter(row["id"] for row in rows(place)) == {"a": 1, "b": 1, "c": 1}


def test_a_file_of_errors_alone_goes(place: str) -> None:
    with Parts(place) as first:
        first.append(error("a"))
    with Parts(place) as second:
        second.repair()
    assert rows(place) == []


def test_files_are_as_large_as_half_a_minute_and_memory_allow(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "RESULTS", 2)
    with Parts(place) as results:
        for name, there in [("a", 0), ("b", 2), ("c", 2), ("d", 4)]:
            results.append(result(name))
            assert len(rows(place)) == there
        monkeypatch.setattr(parts, "SECONDS", 0)
        results.append(result("e"))
        assert len(rows(place)) == 5


def test_one_process_at_a_time_has_a_folder(tmp_path: Path) -> None:
    place = str(tmp_path / "out.parquet")
    with Parts(place), pytest.raises(HsdError, match="another process is writing"):
        Parts(place)
    with Parts(place):
        pass


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "out.parquet"
    folder.mkdir()
    other = parquet(folder / "part-1.parquet", [{"prompt": "a"}])
    before = other.read_bytes()
    with pytest.raises(HsdError, match="has no results of hsd"):
        Parts(str(folder))
    other.rename(tmp_path / "file.parquet")
    with pytest.raises(HsdError, match="is a file"):
        Parts(str(tmp_path / "file.parquet"))
    assert (tmp_path / "file.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a", 1], "all strings or all whole numbers"),
        ([1, "a"], "all strings or all whole numbers"),
        ([1 << 63], "cannot hold the id 9223372036854775808"),
        (["\ud800"], r"cannot hold the id \"\\ud800\""),
    ],
    ids=str,
)
def test_ids_that_a_column_cannot_hold_are_refused_before_anything_is_written(
    model: str, tmp_path: Path, names: list[object], sentence: str
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"id": name, "prompt": "a"}) + "\n" for name in names))
    done = hsd("generate", "-t", model, "-i", source, "-o", tmp_path / "out.parquet")
    assert (done.code, done.out) == (2, "")
    assert sentence.replace("\\\\", "\\").replace('\\"', '"') in done.err
    assert rows(str(tmp_path / "out.parquet")) == []
    arguments = ["-q", "-t", model, "-n", "1", "-i", source, "-o", f"memory://{tmp_path.name}/out.jsonl"]
    assert hsd("generate", *arguments).code == 0


@thorough
def test_kills_lose_nothing_that_was_in_a_file(model: str, tmp_path: Path) -> None:
    records = [{"id": f"r{number}", "prompt": "ab"[number % 2]} for number in range(RECORDS)]
    source, output = parquet(tmp_path / "in.parquet", records), tmp_path / "out.parquet"
    arguments = ["generate", "-q", "-t", model, "-a", "lookup", "-n", "24", "--temperature", "1", "--seed", "7"]
    whole = {each["id"]: each["text"] for each in map(json.loads, hsd(*arguments, "-i", source).out.splitlines())}
    random, nowhere = Random(0), os.open(os.devnull, os.O_RDWR)
    for _ in range(6):
        there = len(list(output.glob("part-*")))
        running = Fork([*arguments, "-i", source, "-o", output], nowhere, nowhere, nowhere, prepare=each_in_a_file)
        while len(list(output.glob("part-*"))) < there + 2:
            assert running.poll() is None
            sleep(0.001)
        sleep(random.uniform(0, 0.02))
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert hsd(*arguments, "-i", source, "-o", output).code == 0
    assert list(output.glob(".*")) == []
    written = rows(str(output))
    assert {row["id"]: row["text"] for row in written} == whole
    assert len(written) == RECORDS


def test_a_kill_in_the_middle_of_a_file_leaves_nothing_that_counts(model: str, tmp_path: Path) -> None:
    source, output = parquet(tmp_path / "in.parquet", [{"id": "a", "prompt": "a"}]), tmp_path / "out.parquet"
    arguments = ["generate", "-q", "-t", model, "-n", "3", "-i", source, "-o", output]
    nowhere = os.open(os.devnull, os.O_RDWR)
    assert Fork(arguments, nowhere, nowhere, nowhere, prepare=die_while_writing).wait() == -signal.SIGKILL
    assert [path.name[:5] for path in output.iterdir()] == [".part"]
    assert hsd(*arguments).code == 0
    assert [path.name[:5] for path in output.iterdir()] == ["part-"]


def each_in_a_file() -> None:
    parts.SECONDS = 0


def die_while_writing() -> None:
    def die(file: Any, *_: object) -> None:
        file.write(b"PAR1")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    parts.write_rows = die
