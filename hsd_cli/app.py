"""The ``hsd`` command: registers the subcommands and turns exceptions into one line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from hsd_cli import __version__
from hsd_cli.commands.generate import generate
from hsd_cli.commands.vocab_diff import vocab_diff
from hsd_cli.errors import EXIT_FAILURE, EXIT_INTERRUPTED, HsdError

app = typer.Typer(
    name="hsd",
    help="Faster text generation with nothing lost: any drafter speeds up any target.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate)
app.command(name="vocab-diff")(vocab_diff)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hsd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failure, 2 usage, 130 interrupted; a closed pipe ends quietly."""
    try:
        app()
    except HsdError as error:
        if os.environ.get("HSD_DEBUG"):
            raise
        typer.echo(f"hsd: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader has left: nothing more to say, and the interpreter must not complain when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILURE)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
