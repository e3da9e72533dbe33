"""A bar for a download, on terminals only, and gone afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column

from hsd_cli.models.pull import Pull, Watcher
from hsd_cli.ui.terminal import visible


@contextmanager
def pull_progress(pull: Pull, quiet: bool) -> Iterator[Watcher]:
    """Shows how much is here, the rate and the time that is left, for as long as the context lasts."""
    progress = Progress(
        # The hub chose the names of the files: no markup, no control characters.
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )
    task = progress.add_task(pull.name, total=pull.size, completed=pull.size - pull.missing)
    with progress:
        yield lambda name, here: progress.update(task, description=visible(name), completed=here)
