"""The live display, seen on the screen of a real terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.terminal import Terminal

HSD = [sys.executable, "-m", "hsd_cli"]
WIDE = "漢字かな交じり文。한국어와 English، mixed 👍🏽 é "


class Scripted:
    """A display at work, and the pipe that tells it what to show."""

    def __init__(self, terminal: Terminal, pipe: Any) -> None:
        self.terminal = terminal
        self._pipe = pipe

    def show(self, *pieces: tuple[str, bool]) -> None:
        self._pipe.write(json.dumps(pieces) + "\n")
        self._pipe.flush()

    def end(self) -> list[str]:
        """All lines that are left when the text has ended."""
        self._pipe.close()
        assert self.terminal.wait() == 0, self.terminal.text
        return [line for line in self.terminal.everything if "frames in" not in line] or [""]


@contextmanager
def scripted(folder: Path, rows: int = 12, columns: int = 80, **environment: str) -> Iterator[Scripted]:
    path = folder / "pipe"
    os.mkfifo(path)
    command = [sys.executable, "-m", "tests.scripted_live", str(path)]
    here = str(Path(__file__).parent.parent)
    environment = {"PYTHONPATH": here, **environment}
    with Terminal(*command, rows=rows, columns=columns, environment=environment) as terminal, open(path, "w") as pipe:
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


def test_without_a_plain_pass_no_speedup_is_claimed(tmp_path: Path) -> None:
    with scripted(tmp_path) as display:
        display.show(("a", True))
        display.terminal.wait_for("plain decoding not timed")


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
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_what_is_left_is_the_text_itself(tmp_path: Path, text: str, step: int) -> None:
    (tmp_path / "text").write_text(text)
    with Terminal("cat", str(tmp_path / "text"), rows=10, columns=40) as plain:
        plain.wait()
    with scripted(tmp_path, rows=10, columns=40) as display:
        for at in range(0, len(text), step):
            display.show((text[at : at + step], at % 2 == 0))
            if at < 20 * step:
                next_frame(display.terminal)
        assert display.end() == plain.everything


def next_frame(terminal: Terminal) -> None:
    """Waits for the display to be drawn again."""
    frames = terminal.sent.count(b"\x1b8")
    terminal.wait_for(lambda: terminal.sent.count(b"\x1b8") > frames)


def test_a_window_that_changes_keeps_text_and_figures_apart(tmp_path: Path) -> None:
    words = [f"word{number} " for number in range(40)]
    with scripted(tmp_path, rows=12, columns=80) as display:
        for number, word in enumerate(words):
            display.show((word, True))
            next_frame(display.terminal)
            if number == 5:
                display.terminal.resize(12, 40)
            if number == 20:
                display.terminal.resize(12, 120)
        assert "".join(display.end()).split() == "".join(words).split()


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


@pytest.mark.parametrize("terminal", ["dumb", "unknown"])
def test_terminals_that_cannot_move_the_cursor_get_plain_text(tmp_path: Path, terminal: str) -> None:
    with Terminal(*HSD, "generate", "-n", "3", "--no-stats", "x", environment={"TERM": terminal}) as plain:
        assert plain.wait() == 0
    assert b"\x1b" not in plain.sent


def test_generate_is_live_on_a_terminal_and_leaves_the_same_text(tmp_path: Path) -> None:
    command = [*HSD, "generate", "-n", "60", "--no-stats", "-t", "embedded:target", "class A:"]
    with Terminal(*command) as live:
        live.wait_for(lambda: "tokens/pass" in live.text)
        assert live.wait() == 0
    with Terminal(*command, "--no-live") as plain:
        assert plain.wait() == 0
    assert live.everything == plain.everything
    assert b"\x1b" not in plain.sent


def test_ctrl_c_ends_the_text_and_takes_the_figures_away(tmp_path: Path) -> None:
    command = [*HSD, "generate", "-n", "100000", "--temperature", "1", "--seed", "1", "-t", "embedded:target", "x"]
    with Terminal(*command) as live:
        live.wait_for("tokens/pass")
        live.send("\x03")
        assert live.wait() == 130
        text = "".join(live.everything)
        assert text.endswith("ended by interrupt")
        assert "tokens/pass" not in text
        assert "^C" not in text
