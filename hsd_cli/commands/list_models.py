"""``hsd list``: the models on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from hsd_cli.commands.models import say


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Ids only, one per line.")] = False,
) -> None:
    """List the models in the Hugging Face cache.

    A GGUF file has a line of its own, with the name that commands take; its repository has one for what else is there.
    Sizes count all downloaded revisions. ROLE is the one that the model played when it last ran. STATE is *whole*,
    *tokenizer only* (enough for `hsd plan` and `hsd vocab-diff`), *partly downloaded* (`hsd pull` goes on with it), or
    *no model* where the files are of another kind.

    Exit codes: 0 done, also where there is none; 1 failure; 2 usage.

    **Examples**

    `hsd list`

    `hsd list --json | jq '.models[] | select(.state != "whole") | .id'`
    """
    from hsd_cli.models.listing import cached_models

    models = cached_models()
    if as_json:
        from hsd_cli.ui.model_json import listed_json

        typer.echo(listed_json(models))
    elif quiet:
        for model in models:
            typer.echo(model.name)
    elif models:
        from hsd_cli.ui.model_table import print_models

        print_models(models)
    else:
        say("no models are downloaded yet; run: hsd pull ID")
