"""``hsd rm``: deletes models from this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hsd_cli.commands.acquire import agrees
from hsd_cli.commands.models import say
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.models.downloaded import downloaded_models

if TYPE_CHECKING:
    from hsd_cli.models.listing import CachedModel


def rm(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="ID", help="As `hsd list` shows them.", show_default=False, autocompletion=downloaded_models
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but questions and errors.")] = False,
) -> None:
    """Delete models from the Hugging Face cache, with all their revisions.

    Of a repository the GGUF files stay, which have names of their own in the list.
    What will be deleted is shown first, with its size. On a terminal there is a question; elsewhere `--yes` is needed.

    Exit codes: 0 done; 1 failure, also where the answer is no; 2 usage; 130 interrupted.

    **Examples**

    `hsd rm HuggingFaceTB/SmolLM2-135M-Instruct`

    `hsd rm --dry-run ID` shows how much it would free

    `hsd list -q | xargs hsd rm --yes`
    """
    from hsd_cli.models.listing import delete_models
    from hsd_cli.ui.plan_figures import size

    chosen = _chosen(models)
    may_ask = sys.stdin.isatty() and sys.stderr.isatty()
    if not (dry_run or yes or may_ask):
        raise UsageError("there is no terminal to ask on; add --yes to delete, or --dry-run to see what would be")
    if not quiet:
        for model in chosen:
            say(f"{'would delete' if dry_run else 'deleting'} {model.name} ({size(model.size)})")
    if not dry_run:
        total = size(sum(model.size for model in chosen))
        if not yes and not agrees(f"Delete {total}?", default=False):
            raise HsdError("nothing was deleted")
        delete_models(chosen)
        if not quiet:
            say(f"freed {total}")
    if as_json:
        from hsd_cli.ui.model_json import deleted_json

        typer.echo(deleted_json(chosen, dry_run))


def _chosen(names: list[str]) -> list[CachedModel]:
    """Raises ``UsageError`` for what is not in the cache."""
    from hsd_cli.models.listing import cached_models

    there = {model.name: model for model in cached_models()}
    for name in names:
        if name not in there:
            raise UsageError(f"{name!r} is not downloaded; see: hsd list")
    return [there[name] for name in dict.fromkeys(names)]
