"""``hsd pull``: brings models to this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from hsd_cli.commands.models import say
from hsd_cli.errors import UsageError
from hsd_cli.models.hub_file import hub_file
from hsd_cli.models.locate import local_folder
from hsd_cli.models.snapshots import MAIN


def pull(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="ID", help="Ids on the hub; for a GGUF file there, `owner/repo:file.gguf`.", show_default=False
        ),
    ],
    revision: Annotated[str, typer.Option(help="A branch, a tag or a commit.")] = MAIN,
    tokenizer_only: Annotated[
        bool, typer.Option("--tokenizer-only", help="No weights: enough for `hsd plan` and `hsd vocab-diff`.")
    ] = False,
    allow_pickle: Annotated[
        bool,
        typer.Option("--allow-pickle", help="Take pickled weights, which may run code, where there are no others."),
    ] = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            help="Take the checkpoint's own Python code along, for commands that are told to run it.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.")] = False,
) -> None:
    """Download models into the Hugging Face cache.

    Only what a run needs is downloaded: configuration, tokenizer, chat template, and the weights in one format. What is
    here already stays, a broken download goes on where it stopped, and what arrives is checked against the hub's
    checksums. Of a GGUF file only the file itself is needed. Prints each model's folder, or the path of the GGUF file,
    which commands take in place of the id (of another revision than `main`, it is the way to use it).

    `HF_HOME` says where the cache is, `HF_TOKEN` opens private and gated models, `HF_ENDPOINT` is another hub.

    Exit codes: 0 done, 1 failure, 2 usage, 130 interrupted (what has arrived stays).

    **Examples**

    `hsd pull Qwen/Qwen2.5-7B-Instruct HuggingFaceTB/SmolLM2-135M-Instruct`

    `hsd pull Qwen/Qwen2.5-7B-Instruct --tokenizer-only`

    `hsd pull Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-0.5b-instruct-q4_k_m.gguf`

    `hsd generate -t "$(hsd pull ID --revision v1.0)" "Hello"`
    """
    for name in models:
        if local_folder(name) is not None:
            raise UsageError(f"{name!r} is on this machine already; give an id on the hub, such as Qwen/Qwen2.5-7B")
        if tokenizer_only and hub_file(name) is not None:
            raise UsageError(f"{name!r} has its tokenizer and its weights in one file; leave --tokenizer-only out")

    from hsd_cli.commands.acquire import download
    from hsd_cli.models.pull import Pull
    from hsd_cli.ui.plan_figures import size

    # All of them are looked up first: a wrong name shows before hours of downloading.
    pulls = [
        Pull.planned(
            name,
            revision,
            tokenizer_only=tokenizer_only,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
        )
        for name in dict.fromkeys(models)
    ]
    missing = [planned.missing for planned in pulls]
    places = download(pulls, quiet)
    for planned, received in zip(pulls, missing, strict=True):
        if not quiet:
            say(f"{planned.name}: {f'{size(received)} downloaded' if received else 'nothing to download'}")
    if as_json:
        from hsd_cli.ui.model_json import pulled_json

        typer.echo(pulled_json(pulls, missing))
    else:
        for place in places:
            typer.echo(place)
