"""Signals, closed pipes and closed terminals: nothing that was there is lost, and the terminal is as it was."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from hsd_cli.ui.terminal import SHOW_CURSOR
from tests.cli import LETTERS, checkpoint
from tests.forks import LIMIT, Fork, ForkedTerminal

ENDLESS = 60_000
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
ENDING = pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Goes on with the alphabet as long as it may."""
    return checkpoint(tmp_path_factory.mktemp("letters"), context=ENDLESS + 100)


@pytest.fixture(autouse=True)
def history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HSD_HISTORY", str(tmp_path / "history"))
    return tmp_path / "history"


class Running:
    """`hsd` in a fork, with pipes for its output and a file for what it says."""

    def __init__(self, folder: Path, *arguments: object, stdin: str = "") -> None:
        (folder / "stdin").write_text(stdin)
        self._err = folder / "stderr"
        self.out, side = os.pipe()
        with (folder / "stdin").open() as given, self._err.open("w") as err:
            self.process = Fork(arguments, given.fileno(), side, err.fileno())
        os.close(side)

    @property
    def err(self) -> str:
        return self._err.read_text()

    def first(self, size: int = 1) -> bytes:
        return os.read(self.out, size)

    def rest(self) -> bytes:
        data = b""
        while chunk := os.read(self.out, 1 << 16):
            data += chunk
        return data


@contextmanager
def running(folder: Path, *arguments: object, stdin: str = "") -> Iterator[Running]:
    command = Running(folder, *arguments, stdin=stdin)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.send_signal(signal.SIGKILL)
            command.process.wait()


def until(holds: Callable[[], object], process: Fork) -> None:
    deadline = monotonic() + LIMIT
    while not holds():
        assert process.poll() is None, "it came to its end before"
        assert monotonic() < deadline
        sleep(0.002)


def alphabet(text: str, start: int = 1) -> bool:
    return ("".join(LETTERS) * (2 + len(text) // len(LETTERS)))[start:].startswith(text)


# One text


@ENDING
def test_a_text_in_a_pipe_is_written_as_far_as_it_came(letters: str, tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, "generate", "-t", letters, "-n", ENDLESS, "--no-stats", "a") as command:
        first = command.first()
        command.process.send_signal(number)
        text = (first + command.rest()).decode()
        assert command.process.wait() == CODES[number]
    assert alphabet(text)
    assert command.err == ""


@pytest.mark.parametrize("number", [*CODES, signal.SIGKILL], ids=lambda number: number.name)
def test_the_old_text_of_a_file_stays_until_the_new_one_has_ended(
    letters: str, tmp_path: Path, number: signal.Signals
) -> None:
    file, part = tmp_path / "text", tmp_path / "text.hsd-part"
    file.write_text("old")
    with running(tmp_path, "generate", "-t", letters, "-n", ENDLESS, "--no-stats", "-o", file, "a") as command:
        until(lambda: part.exists() and part.read_text(), command.process)
        assert file.read_text() == "old"
        command.process.send_signal(number)
        assert command.process.wait() == CODES.get(number, -number)
    assert (file.read_text() == "old") == part.exists() == (number is signal.SIGKILL)
    assert alphabet((part if part.exists() else file).read_text())


@ENDING
def test_a_live_text_is_written_as_far_as_it_came(letters: str, number: signal.Signals) -> None:
    with ForkedTerminal("generate", "-t", letters, "-n", ENDLESS, "--no-stats", "a") as terminal:
        terminal.wait_for(b"tokens/s")
        terminal.process.send_signal(number)
        assert terminal.wait() == CODES[number]
        assert terminal.is_sane()
        assert b"Traceback" not in terminal.sent
        assert terminal.sent.removesuffix(SHOW_CURSOR.encode()).endswith(b"\r\n")


def test_a_live_text_whose_terminal_is_closed_ends_in_silence(letters: str, tmp_path: Path) -> None:
    with (
        (tmp_path / "err").open("w") as err,
        ForkedTerminal("generate", "-t", letters, "-n", ENDLESS, "--live", "a", stderr=err.fileno()) as terminal,
    ):
        terminal.wait_for(b"bcdef")
        terminal.hang_up()
        assert terminal.process.wait() == CODES[signal.SIGHUP]
    assert (tmp_path / "err").read_text() == ""


# A chat


@ENDING
def test_a_piped_chat_keeps_the_answer_as_far_as_it_came(
    letters: str, tmp_path: Path, history: Path, number: signal.Signals
) -> None:
    options = ["chat", "-q", "-t", letters, "-a", "ar", "-n", ENDLESS]
    with running(tmp_path, *options, stdin="a\nb\n") as command:
        first = command.first()
        command.process.send_signal(number)
        text = (first + command.rest()).decode()
        assert command.process.wait() == CODES[number]
    assert command.err == ""
    question, answer = json.loads((history / "last-chat.json").read_text())["messages"]
    assert (question["content"], answer["content"]) == ("a", text.removesuffix("\n"))


def test_a_piped_chat_whose_reader_leaves_is_kept_and_silent(letters: str, tmp_path: Path, history: Path) -> None:
    with running(tmp_path, "chat", "-q", "-t", letters, "-a", "ar", "-n", 1000, stdin="a\nb\n") as command:
        command.first()
        os.close(command.out)
        assert command.process.wait() == 1
    assert command.err == ""
    question, answer = json.loads((history / "last-chat.json").read_text())["messages"]
    assert question["content"] == "a"
    assert alphabet(answer["content"], 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, None], ids=["SIGTERM", "SIGHUP", "closed"])
@pytest.mark.parametrize("writing", [True, False], ids=["while it answers", "while it waits"])
def test_a_chat_on_a_terminal_is_kept(
    letters: str, tmp_path: Path, history: Path, writing: bool, number: signal.Signals | None
) -> None:
    options = ["chat", "-t", letters, "-a", "ar", "-n", ENDLESS if writing else 5]
    with (
        (tmp_path / "err").open("w") as err,
        ForkedTerminal(*options, stderr=err.fileno() if number is None else None) as terminal,
    ):
        terminal.wait_for(b">>>")
        terminal.send("a\r")
        terminal.wait_for(b"abcde")
        if not writing:
            terminal.wait_for(b">>>")
        if number is None:
            terminal.hang_up()
        else:
            terminal.process.send_signal(number)
        assert terminal.wait() == CODES[number or signal.SIGHUP]
        assert number is None or terminal.is_sane()
    assert "Traceback" not in (tmp_path / "err").read_text()
    question, answer = json.loads((history / "last-chat.json").read_text())["messages"]
    assert question["content"] == "a"
    assert alphabet(answer["content"], 0)
    assert len(answer["content"]) >= 5
    assert "+a\n" in (history / "history").read_text()


# Many texts


def records(folder: Path, count: int = 3000) -> Path:
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps({"id": n, "prompt": "a"}) + "\n" for n in range(count)))
    return source


@ENDING
def test_records_stay_as_far_as_they_came_and_the_same_command_goes_on(
    letters: str, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "out.jsonl"
    options = ["generate", "-t", letters, "-n", 8, "-i", records(tmp_path), "-o", output]
    with running(tmp_path, *options) as command:
        until(lambda: output.exists() and output.read_bytes().count(b"\n") >= 2, command.process)
        command.process.send_signal(number)
        assert command.process.wait() == CODES[number]
    said = "hsd: stopped after {} of 3000; the same command continues\n" if number is signal.SIGINT else ""
    done = [json.loads(line) for line in output.read_text().splitlines()]
    assert command.err == said.format(len(done))
    assert [each["id"] for each in done] == list(range(len(done)))
    assert {each["text"] for each in done} == {"bcdefghi"}


def test_records_in_a_pipe_whose_reader_leaves_end_in_silence(letters: str, tmp_path: Path) -> None:
    with running(tmp_path, "generate", "-q", "-t", letters, "-n", 8, "-i", records(tmp_path)) as command:
        assert json.loads(b"".join(iter(command.first, b"\n")))["text"] == "bcdefghi"
        os.close(command.out)
        assert command.process.wait() == 1
    assert command.err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None], ids=["SIGINT", "SIGTERM", "closed"])
def test_a_bar_leaves_a_sane_terminal(letters: str, tmp_path: Path, number: signal.Signals | None) -> None:
    output = tmp_path / "out.jsonl"
    with ForkedTerminal("generate", "-t", letters, "-n", 8, "-i", records(tmp_path), "-o", output) as terminal:
        terminal.wait_for(b"/3000")  # in the middle of its first drawing
        if number is None:
            terminal.hang_up()
        else:
            terminal.process.send_signal(number)
        assert terminal.wait() == CODES[number or signal.SIGHUP]
        assert number is None or terminal.is_sane()
        assert b"Traceback" not in terminal.sent
    assert {json.loads(line)["text"] for line in output.read_text().splitlines()} <= {"bcdefghi"}


@ENDING
def test_files_have_their_whole_texts_or_none(letters: str, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "in").mkdir()
    for place in range(2000):
        (tmp_path / f"in/{place:04}").write_text("a")
    out = tmp_path / "out"
    options = ["generate", "-t", letters, "-n", 8, "-f", tmp_path / "in/*", "--output-dir", out]
    with running(tmp_path, *options) as command:
        until(lambda: out.exists() and len(list(out.iterdir())) > 2, command.process)
        command.process.send_signal(number)
        assert command.process.wait() == CODES[number]
    assert command.err.count("\n") == (number is signal.SIGINT)
    written = sorted(path.name for path in out.iterdir())
    assert written == [f"{place:04}" for place in range(len(written))]
    assert {path.read_text() for path in out.iterdir()} == {"bcdefghi"}


# A benchmark


@pytest.mark.parametrize("number", [signal.SIGHUP, None], ids=["SIGHUP", "closed"])
def test_a_closed_terminal_does_not_cost_what_was_measured(
    letters: str, tmp_path: Path, number: signal.Signals | None
) -> None:
    (tmp_path / "in").write_text("a\nb\n")
    json_file, page = tmp_path / "out.json", tmp_path / "out.html"
    options = ["-t", letters, "--prompts", tmp_path / "in", "-n", 8, "--repeats", 100_000, "--algorithms", "ar"]
    with ForkedTerminal("bench", *options, "--json", json_file, "--html", page) as terminal:
        terminal.wait_for(b"of 100000, prompt 2")  # the first one was measured
        if number is None:
            terminal.hang_up()
        else:
            terminal.process.send_signal(number)
        assert terminal.wait() == CODES[number or signal.SIGHUP]
        assert number is None or terminal.is_sane()
        assert b"Traceback" not in terminal.sent
    report = json.loads(json_file.read_text())
    (comparison,) = report["comparisons"]
    assert report["complete"] is False
    assert comparison["results"][0]["samples"]
    assert page.read_text().endswith("</html>")
