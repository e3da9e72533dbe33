"""The prompt: from standard input, files and the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hsd_cli.batch.paths import expand
from hsd_cli.encoding import decoded
from hsd_cli.errors import HsdError

REPAIRED = "not valid UTF-8; what cannot be read is replaced by \ufffd"


def read_prompt(prompt: str | None, files: Sequence[Path]) -> str:
    """Standard input (piped, or asked for by ``-``), then the files, then the argument; a blank line between them.

    ``files`` may be patterns. A byte order mark says how a part is encoded. Bytes that are not UTF-8 become surrogates,
    as in Python's own arguments. Raises ``HsdError`` for a file.
    """
    parts: list[str] = []
    if sys.stdin is not None and (prompt == "-" or not sys.stdin.isatty()):
        parts.append(decoded(sys.stdin.buffer.read(), "surrogateescape"))
    for file in expand(files):
        try:
            parts.append(decoded(file.read_bytes(), "surrogateescape"))
        except OSError as error:
            raise HsdError(f"cannot read {str(file)!r}: {error.strerror}") from error
    if prompt not in (None, "-"):
        parts.append(prompt)
    parts = [part for part in parts if part]
    return "\n\n".join([*(part.rstrip("\n") for part in parts[:-1]), *parts[-1:]])


def valid(text: str) -> str:
    """``text`` without such surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
