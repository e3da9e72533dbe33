"""How far a benchmark is: a line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from types import TracebackType

import typer
from rich.console import Console
from rich.text import Text

from hsd_cli.ui.terminal import escape, visible

EVERY = 10.0  # seconds between two lines, where there is no terminal


class BenchProgress:
    """``texts`` are to be measured. Shown on standard error, and gone afterwards where that is a terminal."""

    def __init__(self, texts: int, quiet: bool, clock: Callable[[], float] = monotonic) -> None:
        self._texts = texts
        self._in_lines = not quiet and not sys.stderr.isatty()
        self._status = Console(stderr=True, quiet=quiet).status("")
        self._clock = clock
        self._begun = self._shown = clock()

    def __enter__(self) -> BenchProgress:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def show(self, step: str, done: int) -> None:
        """``step`` is measured next, after ``done`` texts."""
        self._status.update(Text(escape(step.encode(errors="surrogateescape"))))
        now = self._clock()
        if self._in_lines and now - self._shown >= EVERY:
            self._shown = now
            left = "" if not done else f", some {_duration((now - self._begun) / done * (self._texts - done))} left"
            typer.echo(f"hsd: {done} of {self._texts} texts measured{left}; {visible(step)}", err=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
