"""Tokens one per line, for pipes."""

from __future__ import annotations

from typing import Literal

from hsd_cli.ui.terminal import escape
from hsd_cli.vocab.report import Report
from hsd_cli.vocab.vocabulary import Vocabulary


def token_text(vocabulary: Vocabulary, index: int) -> str:
    """A token on one line: its escaped bytes, or a special token's name."""
    return escape(vocabulary.token_bytes[index] or vocabulary.name(index).encode())


def token_lines(report: Report, a: Vocabulary, b: Vocabulary, only: Literal["a", "b", "both"]) -> bytes:
    """The tokens of one side that the other lacks, or those of ``a`` that ``b`` has, in id order."""
    vocabulary = b if only == "b" else a
    if only == "both":
        ids = report.a.shared
    else:
        side = report.b if only == "b" else report.a
        ids = sorted(index for members in side.missing.values() for index in members)
    # Bytes, since a token may not fit the encoding of the terminal.
    return "".join(f"{token_text(vocabulary, index)}\n" for index in ids).encode()
