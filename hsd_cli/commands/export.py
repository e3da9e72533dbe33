"""``hsd export``: the command that serves a pair on another engine, or why that engine cannot."""

from __future__ import annotations

from shlex import join
from typing import Annotated, Literal

import typer

from hsd_cli.commands import options
from hsd_cli.commands.groups import in_groups
from hsd_cli.commands.models import say
from hsd_cli.errors import EXIT_CANNOT_SERVE, CannotServeError, UsageError
from hsd_cli.models.locate import EMBEDDED_DRAFTER, EMBEDDED_TARGET
from hsd_cli.ui.output import Output


@in_groups()
def export(
    *,
    engine: Annotated[
        Literal["vllm", "sglang", "llama.cpp", "transformers"],
        typer.Option(help="What is to serve the pair.", show_default=False),
    ],
    pair: options.Pair,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.")] = False,
) -> None:
    """Print what serves a pair on another engine, or why that engine cannot.

    The answer comes from tokenizer files and configurations: whether the vocabularies are the same, what they share,
    and what the engine does about it. A shell command, or a Python script for `transformers`, goes to stdout; the
    engine's limits with this pair go to stderr, each with the page or source that has it. No weights are read. With
    `--trust-remote-code` the engine is told to run the checkpoints' own code, too.

    Exit codes: 0 printed; 1 failure; 2 usage; 3 that engine cannot run this pair; 130 interrupted.

    **Examples**

    `hsd export -t Qwen/Qwen2.5-7B-Instruct -d HuggingFaceTB/SmolLM2-135M-Instruct --engine vllm`

    `hsd export -t TARGET -d DRAFTER --engine transformers > pair.py`

    `hsd export --pair big --engine vllm --json | jq .limits`

    `hsd export -t TARGET -d DRAFTER --engine llama.cpp || echo "not there"`
    """
    if pair.target is not None and pair.draft is None:
        raise UsageError("which drafter? add --draft MODEL")

    from hsd_cli.export.engines import ENGINES
    from hsd_cli.export.pair import ExportedPair
    from hsd_cli.export.recipe import Refusal

    names = pair.target or EMBEDDED_TARGET, pair.draft or EMBEDDED_DRAFTER
    found = ENGINES[engine](ExportedPair.read(*names, trust_remote_code))
    if as_json:
        typer.echo(found.json())
        raise typer.Exit(EXIT_CANNOT_SERVE if isinstance(found, Refusal) else 0)
    if isinstance(found, Refusal):
        flag = ["--trust-remote-code"] if trust_remote_code else []
        raise CannotServeError(f"{found}; hsd can: {join(['hsd', 'generate', *flag, '-t', names[0], '-d', names[1]])}")
    with Output(None) as sink:
        sink.write(found.text)
    if not quiet:
        for limit in found.limits:
            say(str(limit))
