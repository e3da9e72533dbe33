"""``hsd doctor``: is everything there that `hsd` needs?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hsd_cli.commands.configured import Configuration
from hsd_cli.config.location import config_path
from hsd_cli.errors import EXIT_FAILURE, HsdError
from hsd_cli.ui.terminal import escape

if TYPE_CHECKING:
    from hsd_cli.doctor.check import Check, Finding

STYLES = {"ok": "green", "warning": "yellow", "broken": "bold red"}


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Check that everything is there that hsd needs, and say what to do where it is not.

    Versions, devices with their memory and number formats, attention kernels, the hub and your token for it (which is
    never shown), cache folders, disk, your configuration; at last the embedded pair writes a few tokens with and
    without a drafter, which must be the same.

    Exit codes: 0 nothing is broken, though there may be warnings; 1 something is; 2 usage; 130 interrupted.

    **Examples**

    `hsd doctor`

    `hsd doctor --json | jq -r '.checks[] | select(.state != "ok") | .remedy'`
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    found: dict[str, Finding] = {}
    # Shown on terminals only, and gone afterwards.
    with Console(stderr=True, quiet=quiet).status("looking at the libraries") as status:
        for check in _checks(ctx):
            status.update(Text(f"looking at: {check.name}"))
            finding = found[check.name] = check.finding()
            if not as_json:
                sentence = finding.text if finding.remedy is None else f"{finding.text}; {finding.remedy}"
                state = Text(f"{finding.state:9}", STYLES[finding.state])
                console.print(state + f"{check.name:17}{escape(sentence.encode())}", soft_wrap=True)
    broken = any(finding.state == "broken" for finding in found.values())
    if as_json:
        checks = [{"name": name} | asdict(finding) for name, finding in found.items()]
        typer.echo(json.dumps({"broken": broken, "checks": checks}))
    if broken:
        raise typer.Exit(EXIT_FAILURE)


def _checks(ctx: typer.Context) -> Iterator[Check]:
    from hsd_cli.doctor.check import Check, checks_of
    from hsd_cli.doctor.folders import folders
    from hsd_cli.doctor.hub import hub
    from hsd_cli.doctor.machine import machine
    from hsd_cli.doctor.self_test import self_test
    from hsd_cli.doctor.software import software

    def configuration() -> Iterator[Check]:
        yield Check("configuration", lambda: _configuration(ctx))

    for section in (software, machine, hub, folders, configuration, self_test):
        yield from checks_of(section)


def _configuration(ctx: typer.Context) -> Finding:
    from hsd_cli.doctor.check import Finding

    path = config_path()
    try:
        settings = Configuration(ctx).settings()
    except HsdError as error:
        return Finding("broken", str(error))  # it says what to do
    return Finding("ok", f"{path}: {f'{len(settings)} in effect' if path.exists() else 'not there'}")
