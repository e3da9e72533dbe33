"""A real terminal to run commands in: a pseudo-terminal, and an emulator that knows what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pyte
from pyte.screens import Char
from wcwidth import wcwidth

from hsd_cli.app import main
from tests.forks import Fork

LIMIT = 120.0  # seconds until waiting is given up: far more than a slow machine takes
INHERITED = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CI", "GITHUB_ACTIONS")  # what would change the display


class Screen(pyte.HistoryScreen):
    """Wraps a wide character that has only half a place left, and keeps the cursor in the window, as terminals do."""

    def draw(self, data: str) -> None:
        for character in data:
            if wcwidth(character) == 2 and self.cursor.x == self.columns - 1:
                super().draw(" ")
            super().draw(character)

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        super().resize(lines, columns)
        self.cursor.x = min(self.cursor.x, self.columns - 1)


class Terminal:
    """``command`` at work in a terminal of its own. Leaving the context ends it."""

    def __init__(
        self,
        *command: str,
        rows: int = 24,
        columns: int = 80,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.screen = Screen(columns, rows, history=100_000, ratio=0.5)
        self.sent = b""  # all that the command wrote
        self._stream = pyte.ByteStream(self.screen)
        self._changed = threading.Condition()
        self._ended = False
        self._own, side = pty.openpty()
        self._set_size(rows, columns)
        self.process = self._started(command, side, {"TERM": "xterm-256color"} | dict(environment or {}), folder)
        os.close(side)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _started(
        self, command: Sequence[str], side: int, environment: Mapping[str, str], folder: Path | None
    ) -> subprocess.Popen[bytes] | Fork:
        inherited = {name: value for name, value in os.environ.items() if name not in INHERITED}
        return subprocess.Popen(
            command,
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
            env=inherited | environment,
            cwd=folder,
            # The session's own terminal, so that Ctrl-C and the like become signals; and signals as from a shell.
            preexec_fn=_take_terminal,
        )

    def send(self, keys: str) -> None:
        """Types ``keys``; ``\\r`` is Enter, ``\\x03`` Ctrl-C, ``\\x04`` Ctrl-D."""
        os.write(self._own, keys.encode())

    def wait_for(self, wanted: str | Callable[[], object]) -> None:
        """Until the screen shows a text, or something holds. Raises ``AssertionError`` with the screen."""
        holds = (lambda: wanted in self.text) if isinstance(wanted, str) else wanted
        with self._changed:
            found = self._changed.wait_for(lambda: holds() or self._ended, LIMIT) and holds()
        assert found, f"never came: {wanted!r}\n{self.text}"

    def wait(self) -> int:
        """The exit code, after all that was written has been read."""
        code = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        return code

    def resize(self, rows: int, columns: int) -> None:
        with self._changed:
            self.screen.resize(rows, columns)
            self._set_size(rows, columns)
        os.killpg(self.process.pid, signal.SIGWINCH)

    @property
    def lines(self) -> list[str]:
        """What the screen shows, without blanks at the ends."""
        return [self._row(self.screen.buffer[y]) for y in range(self.screen.lines)]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()

    @property
    def history(self) -> list[str]:
        """The lines that have left the screen at its top."""
        return list(map(self._row, self.screen.history.top))

    @property
    def everything(self) -> list[str]:
        """All lines since the beginning, the last empty ones left out."""
        return "\n".join([*self.history, *self.lines]).rstrip().split("\n")

    def _row(self, cells: Mapping[int, Char]) -> str:
        return "".join(cells[x].data for x in range(self.screen.columns)).rstrip()  # half of a wide one has no data

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._reader.join(LIMIT)
        os.close(self._own)

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._own, 1 << 16)
            except OSError:  # how Linux says that the other side is closed
                data = b""
            with self._changed:
                self.sent += data
                self._stream.feed(data)
                self._answer(data)
                self._ended = not data
                self._changed.notify_all()
            if not data:
                return

    def _answer(self, data: bytes) -> None:
        """Line editors ask where the cursor is."""
        if b"\x1b[6n" in data:
            os.write(self._own, b"\x1b[%d;%dR" % (self.screen.cursor.y + 1, self.screen.cursor.x + 1))


class HsdTerminal(Terminal):
    """`hsd` with ``command`` as its arguments, in a fork of this process, which has its libraries loaded."""

    program = staticmethod(main)

    def _started(self, command: Sequence[str], side: int, environment: Mapping[str, str], folder: Path | None) -> Fork:
        def prepare() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            for name in INHERITED:
                os.environ.pop(name, None)
            os.environ.update(environment)

        assert folder is None
        return Fork(command, side, side, side, prepare=prepare, program=self.program)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
