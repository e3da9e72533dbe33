"""``torchrun … -m hsd_cli generate --tensor-parallel``: the first process is the command, the others do as it does."""

from __future__ import annotations

import atexit
import signal

import typer

from hsd_cli.commands.models import ChosenPair


def take_part(pair: ChosenPair) -> None:
    """Returns in the first process alone: the others have nothing to say. Raises ``HsdError``."""
    told_to_end = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # handlers wait for as long as the process waits

    from hsd_cli.runtime.following import follow
    from hsd_cli.runtime.ranks import ranks

    atexit.register(ranks().close)
    if ranks().leads:
        signal.signal(signal.SIGTERM, told_to_end)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the first process's to end the text
    follow(ranks(), lambda: pair.load_share().model)
    raise typer.Exit
