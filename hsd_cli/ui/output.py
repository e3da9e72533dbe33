"""Where a command's text goes."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hsd_cli.errors import HsdError
from hsd_cli.storage import write_atomically
from hsd_cli.ui.terminal import visible

if TYPE_CHECKING:
    from hsd_cli.decoding.loop import Commit

# The folder takes no other file, or the file is one that a container was given, which nothing can replace.
NO_PLACE_BESIDE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY)
UNFINISHED = ".hsd-part"


class Output:
    """Standard output, or the file ``path``. Raises ``HsdError`` for the file.

    Its old text stays until the new one has come to its end, or was interrupted: until then that grows beside it. There
    it stays after a failure, which then says so, and if the process is killed.

    The file is opened at once: whether it can be written should not show after minutes of work.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        with _named(path):
            self._stream = sys.stdout if path is None else path.open("a", encoding="utf-8", newline="")
        self._has_old_text = path is not None and path.is_file() and path.stat().st_size > 0
        self._beside: Path | None = None
        self._terminal = self._stream.isatty()
        self._in_line = False

    def show(self, commit: Commit) -> None:
        """The text of one iteration."""
        self.write(commit.text)

    def write(self, text: str) -> None:
        """Appends ``text`` for whoever watches; a terminal gets what could control it only escaped."""
        with _named(self._path):
            if self._has_old_text:
                self._has_old_text = False
                self._grow_beside()
            self._stream.write(visible(text) if self._terminal else text)
            self._stream.flush()
        if text:
            self._in_line = not text.endswith("\n")

    def replace(self, text: str) -> None:
        """Writes ``text`` in the place of all that the file had. Where that fails, the file is as it was."""
        if self._path is None:
            self.write(text)
        else:
            write_whole(self._path, text)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._terminal and self._in_line:
            self.write("\n")
        if self._path is None:
            return
        if isinstance(error, Exception) and not isinstance(error, typer.Exit):
            with suppress(OSError):  # which was said already
                self._stream.close()
            if self._beside is not None and isinstance(error, HsdError):
                error.args = (f"{error}; what was written is in {str(self._beside)!r}",)
            return
        with _named(self._path):
            self._stream.close()
            if self._beside is not None:
                os.replace(self._beside, self._path.resolve())

    def _grow_beside(self) -> None:
        """Or in the file itself, where there is no place beside it."""
        assert self._path is not None
        place = self._path.resolve()
        beside = place.with_name(place.name + UNFINISHED)
        try:
            stream = beside.open("w", encoding="utf-8", newline="")
        except OSError as error:
            if error.errno not in NO_PLACE_BESIDE:
                raise
            self._stream.truncate(0)
            return
        shutil.copymode(place, beside)
        self._stream.close()
        self._stream, self._beside = stream, beside


def write_whole(path: Path, text: str) -> None:
    """All of ``text`` in the place of what the file had, or nothing. Raises ``HsdError``."""
    data = text.encode()
    with _named(path):
        if path.exists() and not path.is_file():  # a device, a pipe
            path.write_bytes(data)
            return
        try:
            write_atomically(path.resolve(), data, private=False)
        except OSError as error:
            if error.errno not in NO_PLACE_BESIDE:
                raise
            path.write_bytes(data)


@contextmanager
def _named(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if path is None:
            raise
        raise HsdError(f"cannot write {str(path)!r}: {error.strerror}") from error
