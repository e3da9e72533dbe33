"""Batches and files as a command, in the form in which `hsd generate` has them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Annotated
from unittest.mock import patch

import typer

from hsd_cli import app as hsd_app
from hsd_cli.commands.batch import generate_batch
from hsd_cli.commands.each_file import generate_each
from hsd_cli.commands.models import ModelOptions
from hsd_cli.decoding.settings import SamplingSettings
from tests.cli import Result, hsd

COMMAND = [sys.executable, "-m", "tests.batch_command"]
_app = typer.Typer()


@_app.command()
def batch(
    prompt: str | None = None,
    source: Annotated[str | None, typer.Option("-i")] = None,
    files: Annotated[list[Path] | None, typer.Option("-f")] = None,
    template: Annotated[str | None, typer.Option()] = None,
    beside: Annotated[bool, typer.Option("--beside")] = False,
    folder: Annotated[Path | None, typer.Option("--output-dir")] = None,
    output: Annotated[Path | None, typer.Option("-o")] = None,
    target: Annotated[str | None, typer.Option("-t")] = None,
    draft: Annotated[str | None, typer.Option("-d")] = None,
    system: Annotated[str | None, typer.Option("-s")] = None,
    chat: Annotated[bool | None, typer.Option("--chat/--raw")] = None,
    algorithm: Annotated[str, typer.Option("-a")] = "auto",
    max_new_tokens: Annotated[int, typer.Option("-n")] = 8,
    temperature: float = 0.0,
    seed: int | None = None,
    json: Annotated[bool, typer.Option("--json")] = False,
    quiet: Annotated[bool, typer.Option("-q")] = False,
) -> None:
    from hsd_cli.engine import Request

    models = ModelOptions(target, draft, "cpu", "auto", None, None, False, algorithm)
    base = Request(
        prompt="",
        system=system,
        chat=chat,
        algorithm=algorithm,
        max_new_tokens=max_new_tokens,
        sampling=SamplingSettings(temperature),
        seed=seed,
    )
    name = models.names["target"]
    if source is not None:
        generate_batch(source, output, base, target=name, load=lambda: models.load(quiet), stats=True, quiet=quiet)
        return
    generate_each(
        files or [],
        prompt,
        base,
        template=template,
        beside=beside,
        folder=folder,
        output=output,
        as_json=json,
        target=name,
        load=lambda: models.load(quiet),
        stats=True,
        quiet=quiet,
    )


def run(*arguments: object, stdin: bytes = b"") -> Result:
    """The command in this process."""
    with patch.object(hsd_app, "app", _app):
        return hsd(*arguments, stdin=stdin)


def started(
    *arguments: object, stdin: int = subprocess.DEVNULL, stdout: int | IO[bytes] = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """The command in a process of its own, still running."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


if __name__ == "__main__":
    hsd_app.app = _app
    hsd_app.main()
