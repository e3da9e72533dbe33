"""The live display: the text grows where it is, and below it are the figures of the moment.

The text is ordinary output, which the terminal itself wraps and scrolls: wide characters, long lines, copying and
resizing work as ever, and clean text is left behind. Only what is *below* the cursor belongs to the display. It is
erased before there is more text, and drawn again after it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.cells import get_character_cell_size
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

from hsd_cli.ui.live_figures import LiveFigures
from hsd_cli.ui.terminal import visible

if TYPE_CHECKING:
    from hsd_cli.decoding.loop import Commit
    from hsd_cli.engine import Generation

DRAFTED = Style(color="green", bold=True)  # bold also where there are no colours
FRAME = 1 / 12  # seconds from one redrawing to the next, at least
LOOK = 0.25  # seconds after which a change of the window's size is noticed, at the latest
TAB = 8

# Rich has no names for these. See ECMA-48 and DEC's terminals.
ERASE_BELOW = "\x1b[J"
# At the top left corner some terminals take it for a new screen, and keep the old one in their history.
ERASE_BELOW_LINE_START = "\x1b7\x1b[C\x1b[J\x1b8"
LINE_DOWN = "\x1bD"  # scrolls at the bottom and keeps the column
LINES_UP = "\x1b[{}A"
SAVE_CURSOR, RESTORE_CURSOR = "\x1b7", "\x1b8"
NEXT_ROW = " \r"  # makes the terminal wrap a row that is exactly full, as line editors do


def can_be_live(out: TextIO, err: TextIO) -> bool:
    """Whether both are terminals that know how to move the cursor."""
    if not (out.isatty() and err.isatty()):
        return False
    console = Console(file=out)
    return not (console.is_dumb_terminal or console.legacy_windows)


@contextmanager
def _without_echo() -> Iterator[None]:
    """What is typed in the meantime, Ctrl-C too, would be shown in the middle of the text."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class Line:
    """The line that the cursor is in, to know where the terminal wraps it. ``wrapped``: it was made to wrap early."""

    def __init__(self) -> None:
        self.begin(wrapped=False)

    def begin(self, wrapped: bool) -> None:
        self._wrapped = wrapped
        self._text: list[str] = []
        self._counted = 0
        self._columns = 0
        self._column = 0

    def extend(self, text: str) -> str:
        """What to write for ``text``: a row that was wrapped early has the line end already that may follow it."""
        if self._wrapped and text:
            self._wrapped = False
            text = text.removeprefix("\n")
        if "\n" in text:
            self.begin(wrapped=False)
        self._text += text.rpartition("\n")[2]
        return text

    def column(self, columns: int) -> int:
        """The cursor's, in a window of so many; ``columns`` itself is a full row that has not wrapped yet."""
        if columns != self._columns:
            self._columns, self._counted, self._column = columns, 0, 0
        for character in self._text[self._counted :]:
            if character == "\t":
                self._column = min((self._column // TAB + 1) * TAB, columns - 1)
                continue
            width = get_character_cell_size(character)
            self._column = width if self._column + width > columns else self._column + width
        self._counted = len(self._text)
        return self._column


class LiveDisplay:
    """A context in which the commits of ``generation`` are shown on the terminal ``out``.

    A thread draws, so that text never waits for the next commit. What it fails with (``OSError``) is raised by the
    next call.
    """

    def __init__(self, generation: Generation, out: TextIO) -> None:
        self._figures = LiveFigures(generation)
        self._out = out
        self._console = Console(file=out, highlight=False, force_terminal=True)
        self._pending: list[Segment] = []
        self._line = Line()
        self._size = self._terminal_size()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._failure: BaseException | None = None
        self._painter = threading.Thread(target=self._paint, daemon=True)
        self._keyboard = ExitStack()
        self.frames = 0

    def show(self, commit: Commit) -> None:
        """Shows the tokens of one iteration, and by their style which of them were drafted."""
        with self._lock:
            self._figures.add(commit)
            for piece in commit.pieces:
                self._append(piece.text, DRAFTED if piece.drafted else None)
            self._append(commit.tail, None)
        self._wake()

    def write(self, text: str) -> None:
        """Shows text that belongs to no iteration: what was held back when the user interrupted."""
        with self._lock:
            self._append(text, None)
        self._wake()

    def __enter__(self) -> LiveDisplay:
        self._keyboard.enter_context(_without_echo())
        self._changed.set()
        self._painter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._changed.set()
        self._painter.join()
        self._keyboard.close()
        if kind is None:
            self._wake()

    def _wake(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._changed.set()

    def _append(self, text: str, style: Style | None) -> None:
        if text:
            self._pending.append(Segment(visible(text), style))

    def _paint(self) -> None:
        try:
            while not self._closing.is_set():
                if self._changed.wait(LOOK) or self._terminal_size() != self._size:
                    self._changed.clear()
                    self._size = self._terminal_size()
                    self._draw(self._status())
                    self._closing.wait(FRAME)
            self._draw([])
            if self._line.column(self._size.columns):
                self._console.print()
        except BaseException as failure:
            self._failure = failure

    def _draw(self, status: list[list[Segment]]) -> None:
        with self._lock:
            text, self._pending = self._pending, []
        self.frames += 1
        at_start = self._line.column(self._size.columns) == 0
        segments = [Segment(ERASE_BELOW_LINE_START if at_start else ERASE_BELOW)]
        segments += [Segment(self._line.extend(segment.text), segment.style) for segment in text]
        if self._line.column(self._size.columns) == self._size.columns:
            segments.append(Segment(NEXT_ROW))
            self._line.begin(wrapped=True)
        if status:
            rows = [segment for row in status for segment in (Segment("\n"), *row)]
            room = LINE_DOWN * len(status) + LINES_UP.format(len(status))
            segments += [Segment(room + SAVE_CURSOR), *rows, Segment(RESTORE_CURSOR)]
        self._console.print(Segments(segments), crop=False)

    def _status(self) -> list[list[Segment]]:
        """The rows below the text, none if the window is too low for them."""
        with self._lock:
            rows = self._figures.rows()
        if self._size.lines < len(rows) + 2:
            return []
        for row in rows:
            row.end = ""
            row.truncate(self._size.columns - 1, overflow="ellipsis")
        return [list(row.render(self._console)) for row in rows]

    def _terminal_size(self) -> os.terminal_size:
        return os.get_terminal_size(self._out.fileno())
