"""Records as lines of JSON, wherever they are: in a file, on standard input, behind a URL, in the rows of Parquet."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from hsd_cli.batch.parquet import read_rows, require_pyarrow
from hsd_cli.batch.places import filesystem, is_parquet, local_path, naming

STANDARD_INPUT = "-"


class Source(NamedTuple):
    """``lines`` begins anew with every call, which a pipe that is not read ``again`` can do once."""

    lines: Callable[[], Iterable[bytes]]
    again: bool


@contextmanager
def opened(place: str, to_the_end: bool) -> Iterator[Source]:
    """The records of ``place``; ``-`` is standard input. ``to_the_end`` waits for all that a pipe has.

    Raises ``HsdError`` for what cannot be read.
    """
    path = local_path(place)
    if path is None or is_parquet(place):
        yield _stored(place)
        return
    with ExitStack() as stack:
        with naming("read", place):
            stream = sys.stdin.buffer if place == STANDARD_INPUT else stack.enter_context(path.open("rb"))
            if to_the_end and not stream.seekable():
                copy = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(stream, copy)
                copy.seek(0)
                stream = copy
        beginning = stream.tell() if stream.seekable() else None

        def lines() -> Iterable[bytes]:
            if beginning is not None:
                stream.seek(beginning)
            return stream

        yield Source(lines, again=beginning is not None)


def _stored(place: str) -> Source:
    """What a filesystem of fsspec opens as often as it is asked."""
    if is_parquet(place):
        require_pyarrow()
    with naming("read", place):
        files, path = filesystem(place)
        files.info(path)

    def lines() -> Iterator[bytes]:
        with naming("read", place):
            if is_parquet(place):
                for row in read_rows(path, files):
                    yield json.dumps(row, default=_named).encode()
            else:
                with files.open(path, "rb") as file:
                    yield from file

    return Source(lines, again=True)


def _named(value: object) -> dict[str, str]:
    """What JSON has no word for, as something that no field of a record can be."""
    return {type(value).__name__: str(value)}
