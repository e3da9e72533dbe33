"""Models that are not on this machine: asked for, and downloaded."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hsd_cli.errors import EXIT_INTERRUPTED, HsdError
from hsd_cli.models.failures import offline
from hsd_cli.models.locate import downloaded_folder, local_folder, not_downloaded
from hsd_cli.ui.plan_figures import size
from hsd_cli.ui.terminal import visible

if TYPE_CHECKING:
    from hsd_cli.models.pull import Pull


def ensure_downloaded(names: Iterable[str], pull: bool, quiet: bool, trust_remote_code: bool = False) -> None:
    """Downloads what is missing: with ``pull`` at once, on a terminal after a question. Raises ``HsdError``.

    Nothing is sent to the network for a folder, an embedded model, or one that is whole in the cache.
    """
    missing = []
    for name in dict.fromkeys(names):
        tell = partial(_say_what_takes_long, name, quiet)
        if local_folder(name, tell) is None and downloaded_folder(name, trust_remote_code, tell) is None:
            missing.append(name)
    if not missing:
        return
    from huggingface_hub.constants import is_offline_mode

    from hsd_cli.models.pull import Pull

    if is_offline_mode():
        raise HsdError(offline(missing[0]))
    may_ask = not quiet and sys.stdin.isatty() and sys.stderr.isatty()
    pulls = []
    for name in missing:
        advice = not_downloaded(name, trust_remote_code, otherwise=" (or add --pull)")
        if not (pull or may_ask):
            raise advice
        planned = Pull.planned(name, trust_remote_code=trust_remote_code)
        if not pull and not agrees(f"Pull {name} ({size(planned.missing)})?", default=True):
            raise advice
        pulls.append(planned)
    download(pulls, quiet)


def _say_what_takes_long(name: str, quiet: bool) -> None:
    if not quiet:
        typer.echo(visible(f"hsd: reading the tokenizer of {name}, which is done once"), err=True)


def download(pulls: Sequence[Pull], quiet: bool) -> list[Path]:
    """With a bar on a terminal. Returns the folders and files, as ``Pull.run`` does. Raises ``HsdError``, at once if
    there is no room."""
    from hsd_cli.ui.pull_progress import pull_progress

    _check_disk(pulls)
    places = []
    for pull in pulls:
        with pull_progress(pull, quiet) as watch:
            places.append(pull.run(watch))
    return places


def agrees(question: str, default: bool) -> bool:
    """The answer to a question on the terminal; Ctrl-C leaves."""
    try:
        return typer.confirm(visible(question), default=default, err=True)
    except typer.Abort:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _check_disk(pulls: Sequence[Pull]) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    needed, free = sum(pull.missing for pull in pulls), shutil.disk_usage(there).free
    if needed > free:
        names = " and ".join(repr(pull.name) for pull in pulls)
        raise HsdError(
            f"{names}: {size(needed)} to download, and {str(cache)!r} has {size(free)} free; delete models with "
            "`hsd rm`, or set HF_HOME to a folder on a larger disk"
        )
