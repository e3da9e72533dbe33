"""The live display, seen on the screen of a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hsd_cli.ui.live import can_be_live
from tests import scripted_live
from tests.breadth import thorough
from tests.terminal import HsdTerminal, Terminal

HERE = str(Path(__file__).parent.parent)
HSD = [sys.executable, "-m", "hsd_cli"]
WIDE = "漢字かな交じり文。한국어와 English، mixed 👍🏽 é "


class ScriptedTerminal(HsdTerminal):
    program = staticmethod(scripted_live.main)


class Scripted:
    """A display at work, and the pipe that tells it what to show."""

    def __init__(self, terminal: Terminal, pipe: Any) -> None:
        self.terminal = terminal
        self._pipe = pipe
        self._tokens = 0

    def show(self, *pieces: tuple[str, bool]) -> None:
        self._pipe.write(json.dumps(pieces) + "\n")
        self._pipe.flush()
        self._tokens += len(pieces)

    def draw(self, *pieces: tuple[str, bool]) -> None:
        """Shows them, and waits until that has happened."""
        self.show(*pieces)
        self.terminal.wait_for(f"  {self._tokens:,} tokens")

    def end(self) -> list[str]:
        """All lines that are left when the text has ended."""
        self._pipe.close()
        assert self.terminal.wait() == 0, self.terminal.text
        return [line for line in self.terminal.everything if "frames in" not in line] or [""]


@contextmanager
def scripted(folder: Path, rows: int = 12, columns: int = 80, **environment: str) -> Iterator[Scripted]:
    path = folder / "pipe"
    os.mkfifo(path)
    with (
        ScriptedTerminal(str(path), rows=rows, columns=columns, environment=environment) as terminal,
        open(path, "w") as pipe,
    ):
        yield Scripted(terminal, pipe)


def test_text_grows_above_the_figures_which_are_gone_at_the_end(tmp_path: Path) -> None:
    with scripted(tmp_path) as display:
        display.terminal.wait_for("reading the prompt: 1,234 tokens")
        display.show(("Once", False))
        display.terminal.wait_for("nothing drafted yet")
        display.show((" upon", True), (" a", True), (" time", False))
        display.terminal.wait_for("accepted  50%")
        first, *status = display.terminal.text.split("\n")
        assert first == "Once upon a time"
        assert re.fullmatch(r"slem  ·  4 tokens  ·  [\d.]+ tokens/s  ·  ×[\d.]+ of plain decoding", status[0])
        assert status[1] == "accepted  50% ▅  ·  2.00 tokens/pass  ·  lookahead 4"
        assert status[2] == "draft 0%  ·  verify 100%  ·  translate 0%"
        assert display.terminal.screen.cursor.x == len(first)
        display.show((".\nThe end", False))
        assert display.end() == ["Once upon a time.", "The end"]


@pytest.mark.parametrize(("environment", "colour"), [({}, "green"), ({"NO_COLOR": "1"}, "default")])
def test_drafted_text_has_a_colour_and_is_bold(tmp_path: Path, environment: dict[str, str], colour: str) -> None:
    with scripted(tmp_path, **environment) as display:
        display.show(("own", False), ("drafted", True))
        display.terminal.wait_for("owndrafted")
        row = display.terminal.screen.buffer[0]
        assert [(row[x].fg, row[x].bold) for x in (0, 3)] == [("default", False), (colour, True)]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 3000,
        "".join(f"line {number}\n" for number in range(60)),
        WIDE * 30,
        "x" * 39 + "漢" * 100,
        ("x" * 40 + "\n") * 5,
        "x" * 40,
        "\n\n a\tb\t\tc\n" * 20,
        "",
    ],
    ids=["one long line", "more than the screen", "wide", "wide at the edge", "full rows", "one row", "tabs", "empty"],
)
@pytest.mark.parametrize("frames", [[38, 39, 40, 41, 42, 80], [7, 14, 21, 28, 35, 1000]], ids=["at the edge", "across"])
def test_what_is_left_is_the_text_itself(tmp_path: Path, text: str, frames: list[int]) -> None:
    (tmp_path / "text").write_text(text)
    with Terminal("cat", str(tmp_path / "text"), rows=10, columns=40) as plain:
        plain.wait()
    with scripted(tmp_path, rows=10, columns=40) as display:
        for begin, end in pairwise([0, *frames, len(text)]):
            display.draw((text[begin:end], begin % 2 == 0))
        assert display.end() == plain.everything


@pytest.mark.parametrize(("before", "after"), [(40, 120), (40, 60), (80, 40)])
def test_a_window_that_changes_costs_no_text(tmp_path: Path, before: int, after: int) -> None:
    """This terminal leaves rows as they are; where one wrapped them anew, the line of 120 would be full."""
    first, second = "abcdefghijklmnopqrstuvwxyz" * 2, "0123456789" * 6 + "ABCDEFGH"
    if after < before:
        first = first[: after - 1]  # the terminal itself cuts off the rest
    with scripted(tmp_path, rows=12, columns=before) as display:
        display.draw((first, True))
        display.terminal.resize(12, after)
        for place in range(0, len(second), 17):
            display.draw((second[place : place + 17], True))
        display.draw(("\nThe", False))
        display.draw((" end", False))
        *line, last = display.end()
    assert "".join(line) == first + second
    assert last == "The end"


def test_a_window_too_low_for_figures_shows_the_text_alone(tmp_path: Path) -> None:
    with scripted(tmp_path, rows=4, columns=40) as display:
        display.show(("a", True), ("b", False))
        display.terminal.wait_for("ab")
        assert display.terminal.text == "ab"
        display.terminal.resize(8, 40)
        display.terminal.wait_for("accepted")


def test_what_a_model_writes_cannot_control_the_terminal(tmp_path: Path) -> None:
    with scripted(tmp_path) as display:
        display.show(("a\x1b[2J\x07", True), ("\x9b", False), ("\rb", False))
        assert display.end() == [r"a\x1b[2J\x07\u009b\rb"]


def test_it_is_drawn_twelve_times_a_second_at_most_and_the_rest_comes_in_time(tmp_path: Path) -> None:
    with scripted(tmp_path) as display:
        for _ in range(2000):
            display.show(("ab", True))
        display.show((" last", False))
        display.terminal.wait_for(" last")  # though no more comes
        display.end()
        found = re.search(r"(\d+) frames in ([\d.]+) s", display.terminal.text)
    assert found is not None
    assert 1 < int(found[1]) <= 12 * float(found[2]) + 3  # the first, the next and the last


def test_a_terminal_that_cannot_move_the_cursor_gets_plain_text() -> None:
    command = ["generate", "-n", "3", "--no-stats", "-t", "embedded:target", "x"]
    with HsdTerminal(*command, environment={"TERM": "dumb"}) as plain:
        assert plain.wait() == 0
    assert plain.sent
    assert b"\x1b" not in plain.sent


@pytest.mark.parametrize(
    ("name", "encoding", "rows", "live"),
    [
        ("xterm", "utf-8", 24, True),
        ("dumb", "utf-8", 24, False),
        ("unknown", "utf-8", 24, False),
        ("xterm", "latin-1", 24, False),
        ("xterm", "utf-8", 0, False),  # without a size
    ],
)
def test_not_every_terminal_can_show_it(
    name: str, encoding: str, rows: int, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", name)
    own, side = pty.openpty()
    with open(own, "wb"), open(side, "w", encoding=encoding) as out:
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 3 * rows, 0, 0))
        assert can_be_live(out, out) is live


def test_a_job_in_the_background_leaves_the_terminal_to_the_shell() -> None:
    child = [sys.executable, "-m", "tests.scripted_live", os.devnull]
    shell = f"import os, subprocess as s; s.run({child}, preexec_fn=os.setpgrp)"
    with Terminal(sys.executable, "-c", shell, environment={"PYTHONPATH": HERE}) as terminal:
        terminal.wait()
        assert terminal.text == "not live"


def test_generate_is_live_on_a_terminal_and_leaves_the_same_text(tmp_path: Path) -> None:
    command = ["generate", "-n", "60", "--no-stats", "-t", "embedded:target", "class A:"]
    with HsdTerminal(*command) as live:
        live.wait_for(lambda: "tokens/pass" in live.text)
        assert live.wait() == 0
    with HsdTerminal(*command, "--no-live") as plain:
        assert plain.wait() == 0
    assert live.everything == plain.everything
    assert b"\x1b" not in plain.sent


def test_ctrl_c_ends_the_text_and_takes_the_figures_away(tmp_path: Path) -> None:
    command = ["generate", "-n", "100000", "--temperature", "1", "--seed", "1", "-t", "embedded:target", "x"]
    with HsdTerminal(*command) as live:
        live.wait_for("tokens/pass")
        live.send("\x03")
        assert live.wait() == 130
        text = "".join(live.everything)
        assert text.endswith("ended by interrupt")
        assert "tokens/pass" not in text
        assert "^C" not in text


@thorough
def test_ctrl_z_leaves_the_terminal_to_the_shell_and_fg_goes_on(tmp_path: Path) -> None:
    generate = shlex.join([*HSD, "generate", "-n", "100000", "--no-stats", "-t", "embedded:target", "class A:"])
    with Terminal("bash", "--norc", "-i", environment={"PS1": "shell> "}, folder=Path.cwd()) as terminal:
        terminal.wait_for("shell>")
        terminal.send(f"{generate}\r")
        terminal.wait_for("tokens/pass")
        terminal.send("\x1a")
        terminal.wait_for(lambda: terminal.lines[terminal.screen.cursor.y] == "shell>")
        assert "Stopped" in terminal.text
        assert "tokens/pass" not in terminal.text, terminal.text
        terminal.send("echo seen\r")  # so is what is typed
        terminal.wait_for("echo seen")
        terminal.send("fg\r")
        terminal.wait_for("tokens/pass")
        terminal.send("\x03")
        terminal.wait_for(lambda: terminal.lines[terminal.screen.cursor.y] == "shell>")
        assert "^C" not in terminal.text
        assert "tokens/pass" not in terminal.text, terminal.text
