"""The ``hsd`` command: registers the subcommands and turns exceptions into one line and an exit code."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from hsd_cli import __version__
from hsd_cli.commands.generate import generate
from hsd_cli.commands.vocab_diff import vocab_diff
from hsd_cli.errors import EXIT_FAILURE, HsdError
from hsd_cli.ui.terminal import visible

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
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a narrow encoding must not cost the rest of the text
    try:
        app()
    except Exception as error:
        if os.environ.get("HSD_DEBUG"):
            raise
        if isinstance(error, OSError):
            # If it is stdout that failed, the interpreter must not fail again when it flushes what is left.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        typer.echo(f"hsd: {_one_line(error)}", err=True)
        sys.exit(error.exit_code if isinstance(error, HsdError) else EXIT_FAILURE)


def _one_line(error: Exception) -> str:
    """Messages quote names and files that nobody has vetted; of an unforeseen error only the type says what it is."""
    message = visible(" ".join(str(error).split()))
    return message if isinstance(error, HsdError) else f"{type(error).__name__}: {message} (HSD_DEBUG=1 shows where)"
