"""The models of the cache for people."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hsd_cli.models.listing import CachedModel
from hsd_cli.ui.plan_figures import size
from hsd_cli.ui.terminal import visible

PERIODS = (
    (365 * 86400, "year"),
    (30 * 86400, "month"),
    (7 * 86400, "week"),
    (86400, "day"),
    (3600, "hour"),
    (60, "minute"),
)


def print_models(models: Sequence[CachedModel]) -> None:
    table = Table("NAME", "SIZE", "LAST USED", "ROLE", "STATE", box=None, padding=(0, 2, 0, 0), header_style="")
    table.columns[0].overflow = "fold"  # a name that is cut cannot be used
    for model in models:
        name = Text(visible(model.name))
        table.add_row(name, size(model.size), since(model.last_used, time.time()), model.role or "–", model.state)
    Console(highlight=False).print(table)


def since(moment: float, now: float) -> str:
    """``3 days ago``; a clock that went backwards makes ``just now``."""
    for seconds, period in PERIODS:
        if number := int(max(now - moment, 0) // seconds):
            return f"{number} {period}{'' if number == 1 else 's'} ago"
    return "just now"
