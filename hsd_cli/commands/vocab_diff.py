"""``hsd vocab-diff``: will this pair work, and how? Answered from tokenizer files alone."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from hsd_cli.commands import options, suggestions


def vocab_diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="The target's tokenizer.", show_default=False, autocompletion=suggestions.models
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B", help="The drafter's tokenizer.", show_default=False, autocompletion=suggestions.models
        ),
    ],
    text: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Measure on this text, not the built-in sample."),
    ] = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    only: Annotated[
        Literal["a", "b", "both"] | None,
        typer.Option(help="List the tokens that only A, only B, or both have, one per line."),
    ] = None,
) -> None:
    """Compare two vocabularies, before any weights are downloaded.

    A is the target's tokenizer and B the drafter's: a model on the hub, a folder, a GGUF file, a `tokenizer.json` or a
    tiktoken file. Tokens are compared by the bytes that they write. *cuts shared* is how many tokens of the text end
    where one of the other's ends, too: two models with the same tokens may cut text differently. In lists, `\\n`,
    `\\x1b`, `\\u200b` and `\\xff` stand for invisible characters and incomplete ones.

    **Examples**

    `hsd vocab-diff Qwen/Qwen2.5-7B-Instruct HuggingFaceTB/SmolLM2-135M-Instruct`

    `hsd vocab-diff TARGET DRAFTER --text notes.txt`

    `hsd vocab-diff TARGET DRAFTER --only b | head` shows what the drafter alone has

    `hsd vocab-diff TARGET DRAFTER --json | jq .a.share_of_text`
    """
    from hsd_cli.encoding import decoded
    from hsd_cli.errors import UsageError
    from hsd_cli.vocab.report import compare, sample_text
    from hsd_cli.vocab.source import read_vocabulary

    if as_json and only:
        raise UsageError("--json and --only are two kinds of output; give one of them")
    sample = sample_text() if text is None else decoded(text.read_bytes(), "replace")
    if not sample:
        raise UsageError(f"{str(text)!r} is empty; give another file, or none for the built-in sample")
    with _without_collections():
        target = read_vocabulary(a, trust_remote_code=trust_remote_code)
        drafter = target if a == b else read_vocabulary(b, trust_remote_code=trust_remote_code)
        report = compare(target, drafter, sample)
    if only:
        from hsd_cli.ui.vocab_list import token_lines

        typer.echo(token_lines(report, target, drafter, only), nl=False)
    elif as_json:
        from hsd_cli.ui.vocab_json import to_json

        typer.echo(to_json(report, target, drafter))
    else:
        from hsd_cli.ui.vocab_table import print_report

        print_report(report, target, drafter, (a, b))


@contextmanager
def _without_collections() -> Iterator[None]:
    """For code that makes millions of objects and no garbage: looking for it would take a tenth of the time.

    Nor is it looked for later, at exit least of all.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
