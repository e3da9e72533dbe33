"""Records as lines of JSON, wherever they are: in a file, on standard input, behind a URL, in the rows of Parquet."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, NamedTuple

from hsd_cli.batch.parquet import read_rows, require_pyarrow
from hsd_cli.batch.pipe import PipeLines
from hsd_cli.batch.places import filesystem, is_parquet, local_path, naming
from hsd_cli.encoding import utf8_lines

STANDARD_INPUT = "-"


class Source(NamedTuple):
    """``lines`` begins anew with every call, which a pipe that is not read ``again`` can do once.

    ``ready``: whether nobody has to be waited for until the next one is there.
    """

    lines: Callable[[], Iterable[bytes]]
    again: bool = True
    ready: Callable[[], bool] = lambda: True


@contextmanager
def opened(place: str) -> Iterator[Source]:
    """The records of ``place``; ``-`` is standard input. Raises ``HsdError`` for what cannot be read."""
    path = local_path(place)
    if path is None or is_parquet(place):
        yield _stored(place)
        return
    with ExitStack() as stack:
        with naming("read", place):
            stream = sys.stdin.buffer if place == STANDARD_INPUT else stack.enter_context(path.open("rb"))
        yield _from_its_place(stream) if stream.seekable() else _as_they_come(stream, place)


@contextmanager
def to_the_end(source: Source, place: str) -> Iterator[Source]:
    """All that a pipe has, once that is known, to be read again; ``place`` is where it comes from."""
    if source.again:
        yield source
        return
    with tempfile.TemporaryFile() as copy:
        with naming("copy", place):
            copy.writelines(source.lines())
            copy.seek(0)
        yield _from_its_place(copy)


def _from_its_place(stream: IO[bytes]) -> Source:
    beginning = stream.tell()

    def lines() -> Iterable[bytes]:
        stream.seek(beginning)
        return utf8_lines(stream)

    return Source(lines)


def _as_they_come(stream: IO[bytes], place: str) -> Source:
    coming = PipeLines(stream.fileno(), place)
    return Source(lambda: coming, again=False, ready=coming.ready)


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
                    yield from utf8_lines(file)

    return Source(lines)


def _named(value: object) -> dict[str, str]:
    """What JSON has no word for, as something that no field of a record can be."""
    return {type(value).__name__: str(value)}
