"""Which files are meant. Apart from what is done with them, so that a wrong name is refused before torch is loaded."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from hsd_cli.errors import HsdError, UsageError


def expand(patterns: Sequence[Path]) -> list[Path]:
    """The files that are meant, each once: patterns in the order given, what one matches (``**`` too) in order of name.

    What is there under the very name of a pattern is no pattern. Raises ``HsdError`` for what is no file, and
    ``UsageError`` for a pattern that matches none.
    """
    files: dict[str, Path] = {}
    for pattern in patterns:
        for path in _matches(pattern):
            files.setdefault(os.path.realpath(path), path)
    return list(files.values())


def _matches(pattern: Path) -> list[Path]:
    if not glob.has_magic(str(pattern)) or pattern.exists():
        if pattern.is_dir():
            raise HsdError(f"cannot read {str(pattern)!r}: Is a directory; {str(pattern / '*')!r} are the files in it")
        if not pattern.exists():
            raise HsdError(f"cannot read {str(pattern)!r}: No such file or directory")
        return [pattern]
    found = sorted(map(Path, glob.iglob(str(pattern), recursive=True)))
    files = [path for path in found if path.is_file()]
    if not files:
        raise UsageError(f"no file matches {str(pattern)!r}")
    return files
