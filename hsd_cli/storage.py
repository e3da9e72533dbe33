"""Where `hsd` keeps what it has worked out: small files that may be deleted, damaged or missing at any time."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """``HSD_CACHE``, or the platform's place for such files."""
    chosen = os.environ.get("HSD_CACHE")
    return Path(chosen) if chosen else user_cache_path("hsd", appauthor=False)


def make_private(folder: Path) -> None:
    """Makes ``folder``, and what is missing above it, for the user alone. Raises ``OSError``."""
    for each in reversed([folder, *folder.parents]):
        each.mkdir(mode=0o700, exist_ok=True)


def write_atomically(path: Path, data: bytes, private: bool = True) -> None:
    """All of ``data`` or nothing, for readers, for two writers at once and for a disk that is full.

    ``private``: for the user's eyes alone, and so are folders that are made. Else the folder is there, and the file has
    the mode that it had, or the usual one. Raises ``OSError``.
    """
    if private:
        make_private(path.parent)
    beside = path.with_name(f".hsd-{secrets.token_hex(8)}")
    try:
        with open(beside, "xb", opener=lambda name, flags: os.open(name, flags, 0o600 if private else 0o666)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not private and path.exists():
            shutil.copymode(path, beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """One process at a time, for what is read, changed and written again. Raises ``OSError``."""
    make_private(folder)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every network's file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
