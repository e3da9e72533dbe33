"""The file of results: whatever happened to it, what is done stays and the rest can be done."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsd_cli.batch.journal import Journal
from hsd_cli.batch.records import Failure
from hsd_cli.batch.results import Result
from hsd_cli.errors import HsdError


def result(name: str | int, text: str = "abc") -> str:
    return Result(
        id=name, line=1, text=text, finish_reason="eos", tokens=3, prompt_tokens=1, cached_prompt_tokens=0, drafted=0,
        accepted=0, acceptance_rate=None, seconds=0.5, tokens_per_second=6.0, algorithm="ar", verification="coupled",
        seed=1, run_seed=7, fingerprint=f"of {name}", drafter_failure=None, drafter_refusal=None,
    ).json()  # fmt: skip


ERROR = Failure(None, 3, "not JSON").json()


def finish(path: Path, lines: Sequence[str]) -> None:
    """What a batch does: every line that is not done is appended, and errors are not done."""
    with Journal(path) as journal:
        journal.repair()
        for line in lines:
            if json.loads(line)["id"] not in journal.finished:
                journal.append(line)


@given(
    st.lists(st.tuples(st.text(max_size=3) | st.integers(), st.text(max_size=5)), unique_by=lambda pair: pair[0]),
    st.data(),
)
def test_any_beginning_of_a_file_of_results_is_completed_to_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str | int, str]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "out.jsonl"
    lines = [result(name, text) for name, text in records]
    whole = "".join(lines).encode()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(2):
        finish(path, lines)
        assert path.read_bytes() == whole


@given(st.lists(st.sampled_from("re"), max_size=6), st.data())
def test_errors_are_taken_out_and_tried_again(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "out.jsonl"
    lines = [result(number) if kind == "r" else ERROR for number, kind in enumerate(kinds)]
    whole = "".join(lines).encode()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    finish(path, lines)
    assert sorted(path.read_text().splitlines(keepends=True)) == sorted(lines)
    assert os.listdir(path.parent) == [path.name]


def test_what_is_done_is_told_with_its_fingerprint_and_the_seed_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(result("a") + ERROR + result(2) + result("cut")[:-1])
    with Journal(path) as journal:
        assert (journal.finished, journal.run_seed) == ({"a": "of a", 2: "of 2"}, 7)


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"hello\n",
        b"{}\n",
        b'{"id": 1, "prompt": "x"}\n',
        b'{"id": 1, "prompt": "x"}',
        b"\n",
        b"\0\0\0",
        b"[1]\n",
        result([1]).encode(),  # type: ignore[arg-type]
        result("a").encode() + b"hello\n" + result("b").encode(),
        result("a").encode() + b"hello",
    ],
    ids=range(11),
)
def test_something_else_than_results_is_refused_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(HsdError, match=r"line [12] of '.*out.jsonl' is no result of hsd; give another -o"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_second_writer_is_refused_even_after_errors_were_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(result("a") + ERROR)
    with Journal(path) as journal:
        for _ in range(2):
            with pytest.raises(HsdError, match=r"another process is writing .*out\.jsonl"):
                Journal(path)
            journal.repair()
        journal.append(result("b"))
    with Journal(path) as journal:
        assert list(journal.finished) == ["a", "b"]


def test_a_writer_that_came_while_the_file_was_replaced_gets_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(result("a") + ERROR)
    open_file = os.open

    def open_just_before(*arguments: object) -> int:
        monkeypatch.undo()
        descriptor = open_file(*arguments)  # type: ignore[arg-type]
        finish(path, [result("b")])
        return descriptor

    monkeypatch.setattr(os, "open", open_just_before)
    finish(path, [result("c")])
    assert path.read_text() == result("a") + result("b") + result("c")


def test_taking_out_errors_keeps_links_and_permissions(tmp_path: Path) -> None:
    path, link = tmp_path / "out.jsonl", tmp_path / "link"
    path.write_text(ERROR)
    path.chmod(0o640)
    link.symlink_to(path)
    finish(link, [result("a")])
    assert link.is_symlink()
    assert path.read_text() == result("a")
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(("name", "reason"), [("no/such/folder", "No such file or directory"), ("", "Is a directory")])
def test_a_file_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(HsdError, match=f"cannot write '.*': {reason}"):
        Journal(tmp_path / name)


def test_on_a_full_disk_what_is_done_stays_and_nothing_is_half_written(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk's."""
    path = tmp_path / "out.jsonl"
    path.write_text(ERROR)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        journal.repair()
        journal.append(result("a"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(result("a")) + 10, limits[1]))
        try:
            with pytest.raises(HsdError, match=r"cannot write '.*out\.jsonl': File too large"):
                journal.append(result("b"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_text() == result("a")
        journal.append(result("b"))
    assert path.read_text() == result("a") + result("b")
