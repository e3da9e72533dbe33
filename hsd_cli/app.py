"""The ``hsd`` command: registers the subcommands and turns exceptions into one line and an exit code."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Annotated

import typer
from typer.core import TyperGroup

from hsd_cli import __version__
from hsd_cli.commands.bench import bench
from hsd_cli.commands.chat import chat
from hsd_cli.commands.completion import LINE, answer, completion
from hsd_cli.commands.config import config
from hsd_cli.commands.doctor import doctor
from hsd_cli.commands.export import export
from hsd_cli.commands.generate import generate
from hsd_cli.commands.interrupts import told_to_end
from hsd_cli.commands.list_models import list_models
from hsd_cli.commands.optional_values import OptionalValues
from hsd_cli.commands.plan import plan
from hsd_cli.commands.pull import pull
from hsd_cli.commands.rm import rm
from hsd_cli.commands.serve import serve
from hsd_cli.commands.verify import verify
from hsd_cli.commands.vocab_diff import vocab_diff
from hsd_cli.errors import EXIT_FAILURE, EXIT_INTERRUPTED, HsdError
from hsd_cli.ui.terminal import restorer, visible

app = typer.Typer(
    name="hsd",
    help="Faster text generation with nothing lost: any drafter speeds up any target.",
    rich_markup_mode="markdown",
    add_completion=False,  # `hsd completion` knows more, and sooner
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=OptionalValues)(generate)
app.command()(chat)
app.command()(serve)
app.command(name="vocab-diff")(vocab_diff)
app.command()(plan)
app.command()(verify)
app.command()(bench)
app.command()(export)
app.command()(pull)
app.command(name="list")(list_models)
app.command()(rm)
app.add_typer(config, name="config")
app.command()(doctor)
app.command()(completion)


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
    """Entry point. Exit codes: 0 done, 1 failure, 2 usage, 130 interrupted, 143 told to end, 129 the terminal was
    closed; a closed pipe is quiet."""
    told, restore = told_to_end(), restorer()
    try:
        sys.exit(_outcome(told))
    except SystemExit as leaving:
        if told or leaving.code == EXIT_INTERRUPTED:
            _flush()
            restore()
        raise


def _outcome(told: list[int]) -> int:
    """The exit code, after what went wrong was said."""
    try:
        return _run(sys.argv[1:] or ["--help"])
    except Exception as error:
        if isinstance(error, OSError):
            _flush()
        if told:  # with the terminal there is much that fails
            return told[0]
        if os.environ.get("HSD_DEBUG"):
            raise
        # Messages quote names and files that nobody has vetted.
        typer.echo(f"hsd: {visible(' '.join(_sentence(error).split()))}", err=True)
        return int(getattr(error, "exit_code", EXIT_FAILURE))


def _flush() -> None:
    """What is left for standard output and cannot go there must not fail again when the interpreter flushes it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    """The exit code of a command that has not failed."""
    if sys.stdout is None:
        raise HsdError("standard output is closed; send it to a file or to /dev/null")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a narrow encoding must not cost the rest of the text
    if LINE in os.environ:
        group = typer.main.get_command(app)
        assert isinstance(group, TyperGroup)
        answer(group, os.environ[LINE])
        return 0
    return app(arguments, prog_name="hsd", standalone_mode=False) or 0


def _sentence(error: Exception) -> str:
    """What is wrong and what to do next."""
    if isinstance(error, HsdError):
        return str(error)
    if isinstance(error, typer.TyperException):
        context: typer.Context | None = getattr(error, "ctx", None)
        command = "hsd" if context is None else context.command_path
        message = error.format_message().rstrip(".")
        return f"{message[:1].lower()}{message[1:]}; see `{command} --help`"
    if isinstance(error, OSError) and error.strerror:  # files are explained where they are opened: this is the output
        return f"cannot write standard output: {error.strerror}"
    return f"{type(error).__name__}: {error} (HSD_DEBUG=1 shows where)"
