"""Where records are read and results are written: paths of this machine, and URLs, which fsspec's drivers know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hsd_cli.errors import HsdError, UsageError

HERE = "file://"
PARQUET = ".parquet"


def local_path(place: str) -> Path | None:
    """The path that ``place`` is, unless it is the URL of another filesystem."""
    path = place.removeprefix(HERE)
    return None if "://" in path else Path(path)


def is_parquet(place: str) -> bool:
    return place.rstrip("/").endswith(PARQUET)


def filesystem(place: str) -> tuple[Any, str]:
    """Of fsspec, and the path in it. Raises ``HsdError`` if there is no driver for it."""
    from fsspec.core import url_to_fs

    try:
        found: tuple[Any, str] = url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise UsageError(f"cannot use {place!r}: {error}") from error
    return found


@contextmanager
def naming(doing: str, place: str) -> Iterator[None]:
    """What a filesystem or a driver raises becomes one line: ``cannot DOING PLACE: ...``."""
    try:
        yield
    except HsdError:
        raise
    except OSError as error:
        raise HsdError(f"cannot {doing} {place!r}: {error.strerror or error}") from error
