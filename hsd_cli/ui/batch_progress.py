"""How far a batch has come: a bar while it runs on a terminal, and one line at the end."""

from __future__ import annotations

from contextlib import ExitStack
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hsd_cli.decoding.loop import Commit
from hsd_cli.ui.keyboard import without_echo


class BatchProgress:
    """Counts records and tokens. ``total`` is unknown where records come as they please."""

    def __init__(self, total: int | None, finished: int, shown: bool) -> None:
        self._total = total
        self._finished = finished
        self.failed = self._written = 0
        self._tokens = self._drafted = self._accepted = 0
        self._begun = perf_counter()
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
            disable=not shown,
        )
        self._shown = ExitStack()
        self._task = self._bar.add_task("", total=total, completed=finished, figures="")

    def watch(self, commit: Commit) -> None:
        """Counts one iteration."""
        self.add(len(commit.pieces), commit.drafted, commit.accepted)

    def add(self, tokens: int, drafted: int, accepted: int) -> None:
        """Counts what was written, maybe elsewhere."""
        self._tokens += tokens
        self._drafted += drafted
        self._accepted += accepted
        self._bar.update(self._task, figures=" · ".join(self._figures()))

    def count(self, failed: bool) -> None:
        """Counts one record."""
        self.failed += failed
        self._written += not failed
        self._bar.advance(self._task)

    @property
    def seen(self) -> int:
        """Records so far, those of earlier runs too."""
        return self._finished + self._written + self.failed

    def stopped(self) -> str:
        """How far an interrupted run came."""
        return f"stopped after {self.seen}" + ("" if self._total is None else f" of {self._total}")

    def line(self) -> str:
        """What the run did."""
        before = [f"{self._finished} were done before"] if self._finished else []
        seconds = perf_counter() - self._begun
        count = f"{self._written} text" + ("" if self._written == 1 else "s")
        parts = [count, *before, f"{self._tokens} tokens in {seconds:.2f} s", *self._figures()]
        return " · ".join(parts)

    def _figures(self) -> list[str]:
        seconds = perf_counter() - self._begun
        rate = [f"{self._tokens / seconds:.1f} tokens/s"] if self._tokens else []
        return rate + ([f"accepted {self._accepted / self._drafted:.0%}"] if self._drafted else [])

    def __enter__(self) -> BatchProgress:
        if not self._bar.disable:
            self._shown.enter_context(without_echo())
        self._shown.enter_context(self._bar)
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.close()
