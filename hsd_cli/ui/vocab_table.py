"""The report of a pair of vocabularies for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hsd_cli.ui.vocab_list import token_text
from hsd_cli.vocab.report import TOKEN_CLASSES, Report, Side
from hsd_cli.vocab.vocabulary import Vocabulary

EXAMPLES = 3  # per class
EXAMPLE_WIDTH = 16


def print_report(report: Report, a: Vocabulary, b: Vocabulary, sources: tuple[str, str]) -> None:
    """One table with a column per side, then the verdict."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column()
    for role, source in zip(("target", "drafter"), sources, strict=True):
        table.add_column(Text(f"{role}: {source}"), overflow="fold")
    sides = (report.a, report.b)
    table.add_row("family", *(side.family for side in sides))
    table.add_row("tokens", *(f"{side.tokens:,}" for side in sides))
    table.add_row("shared tokens", *(f"{len(side.shared):,} ({side.shared_fraction:.1%})" for side in sides))
    table.add_row("share of text", *(f"{side.share_of_text:.1%}" for side in sides))
    table.add_row("bytes per token", *(f"{side.bytes_per_token:.2f}" for side in sides))
    table.add_row("cuts shared", *(f"{side.shared_ends:.1%}" for side in sides))
    missing = [name for name in TOKEN_CLASSES if any(name in side.missing for side in sides)]
    if missing:
        table.add_row()
        table.add_row("only here")
    for name in missing:
        table.add_row(f"  {name}", _missing(report.a, a, name), _missing(report.b, b, name))
    console = Console(highlight=False)
    console.print(table)
    console.print()
    console.print(Text(report.verdict.reason), soft_wrap=True)


def _missing(side: Side, vocabulary: Vocabulary, name: str) -> Text:
    """How many tokens of a class the other side lacks, and the first few of them."""
    ids = side.missing.get(name, [])
    examples = (token_text(vocabulary, index) for index in ids[:EXAMPLES])
    # Text takes no markup: what a tokenizer contains must not style, link or overwrite anything.
    return Text(f"{len(ids):,}").append("".join(f"  “{_shorten(example)}”" for example in examples), style="dim")


def _shorten(text: str) -> str:
    return text if len(text) <= EXAMPLE_WIDTH else text[: EXAMPLE_WIDTH - 1] + "…"
