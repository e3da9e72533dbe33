"""The live display: the text grows where it is, and below it are the figures of the moment.

The text is ordinary output, which the terminal itself wraps and scrolls: wide characters, long lines, copying and
resizing work as ever, and clean text is left behind. Only what is *below* the cursor belongs to the display. It is
erased before there is more text, and drawn again after it.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.cells import get_character_cell_size
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from hsd_cli.ui.keyboard import without_echo
from hsd_cli.ui.live_figures import LiveFigures
from hsd_cli.ui.terminal import in_foreground, visible

if TYPE_CHECKING:
    from hsd_cli.decoding.loop import Commit
    from hsd_cli.engine import Generation

DRAFTED = Style(color="green", bold=True)  # bold also where there are no colours
FRAME = 1 / 12  # seconds from one redrawing to the next, at least
LOOK = 0.25  # seconds after which a change of the window's size is noticed, at the latest
TAB = 8

# Rich has no names for these. See ECMA-48 and DEC's terminals.
# From the next column on: at the top left corner some terminals take it for a new screen, and keep the old one in their
# history.
ERASE_BELOW = "\x1b7\x1b[C\x1b[J\x1b8"
LINE_DOWN = "\x1bD"  # scrolls at the bottom and keeps the column
LINES_UP = "\x1b[{}A"
SAVE_CURSOR, RESTORE_CURSOR = "\x1b7", "\x1b8"


def can_be_live(out: TextIO, err: TextIO) -> bool:
    """Whether both are terminals, and ``out`` one that moves its cursor where it is told to, for this process."""
    if not (out.isatty() and err.isatty()):
        return False
    console = Console(file=out)
    if console.is_dumb_terminal or console.legacy_windows or console.options.ascii_only:
        return False
    return os.get_terminal_size(out.fileno()).columns > 0 and in_foreground(out)


class Line:
    """The line that the cursor is in, to know where the terminal wraps it.

    ``filling``: how many of the last characters it is that end with a row exactly full, mostly none.
    When the window changes its width, some terminals wrap the line anew and others leave its rows alone: ``_anew`` and
    ``_kept`` are the columns that the cursor is in then, and are the same again from the next line on.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._begin()

    def _begin(self) -> None:
        self._text: list[str] = []
        self._anew = self._kept = 0
        self.filling = 0

    def extend(self, text: str) -> None:
        for character in text:
            if character == "\n":
                self._begin()
                continue
            self._text.append(character)
            self._anew = self._after(character, self._anew)
            self._kept = self._after(character, self._kept)
            is_full = self._width in (self._anew, self._kept)
            self.filling = self.filling + 1 if is_full else 0

    def resize(self, width: int) -> None:
        kept, text = min(self._kept, width - 1), self._text
        self._width = width
        self._begin()
        self.extend("".join(text))
        self._kept = kept

    def _after(self, character: str, column: int) -> int:
        if character == "\t":
            return min((column // TAB + 1) * TAB, self._width - 1)
        cells = get_character_cell_size(character)
        return cells if column + cells > self._width else column + cells


class LiveDisplay:
    """A context in which the commits of ``generation`` are shown on the terminal ``out``.

    A thread draws, so that text never waits for the next commit. What it fails with (``OSError``) is raised by the
    next call.
    """

    def __init__(self, generation: Generation, out: TextIO) -> None:
        self._figures = LiveFigures(generation)
        self._out = out
        self._console = Console(file=out, highlight=False, force_terminal=True)
        self._pending = Text()
        self._followed = 0  # characters of it
        self._in_line = False
        self._size = self._terminal_size()
        self._line = Line(self._size.columns)
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._painter = threading.Thread(target=self._paint, daemon=True)
        self._keyboard = ExitStack()
        self._signals = ExitStack()
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
        self._keyboard.enter_context(without_echo())
        if hasattr(signal, "SIGTSTP"):
            before = signal.signal(signal.SIGTSTP, self._stop)
            self._signals.callback(signal.signal, signal.SIGTSTP, before)
        self._changed.set()
        self._painter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._signals, self._keyboard:
            self._closing.set()
            self._changed.set()
            self._painter.join()
        if kind is None:
            self._wake()

    def _wake(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._changed.set()

    def _append(self, text: str, style: Style | None) -> None:
        self._pending.append(visible(text), style)

    def _paint(self) -> None:
        try:
            while not self._closing.is_set():
                if self._changed.wait(LOOK) or self._terminal_size() != self._size:
                    self._changed.clear()
                    self._look()
                    if self._stopping.is_set():
                        self._sleep()
                    self._draw(self._text(), self._status())
                    self._closing.wait(FRAME)
            self._draw(self._pending, [])
            if self._in_line:
                self._console.print()
        except BaseException as failure:
            self._failure = failure

    def _stop(self, *_: object) -> None:
        """Ctrl-Z. The painter stops the process, in the middle of no drawing."""
        self._stopping.set()
        self._changed.set()

    def _sleep(self) -> None:
        """Leaves the terminal to the shell until the process is continued, and goes on wherever the cursor is then."""
        self._draw(self._text(), [])
        self._keyboard.close()
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # to this thread: it must not draw once more
        self._keyboard.enter_context(without_echo())
        self._line = Line(self._size.columns)
        self._stopping.clear()

    def _look(self) -> None:
        size = self._terminal_size()
        if size.columns != self._size.columns:
            self._line.resize(size.columns)
        self._size = size

    def _text(self) -> Text:
        """What there is to write, but for characters that would fill a row: they wait for the next one.

        Terminals differ in where the cursor is at the end of a full row, and in whether they restore that.
        """
        with self._lock:
            self._line.extend(self._pending.plain[self._followed :])
            text, self._pending = self._pending.divide([max(len(self._pending) - self._line.filling, 0)])
            self._followed = len(self._pending)
        return text

    def _draw(self, text: Text, status: list[list[Segment]]) -> None:
        self.frames += 1
        if text:
            self._in_line = not text.plain.endswith("\n")
        segments = [Segment(ERASE_BELOW), *text.render(self._console)]
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
