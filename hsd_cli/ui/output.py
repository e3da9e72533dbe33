"""Where a command's text goes."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hsd_cli.errors import HsdError
from hsd_cli.storage import write_atomically
from hsd_cli.ui.terminal import visible

if TYPE_CHECKING:
    from hsd_cli.decoding.loop import Commit

# The folder takes no other file, or the file is one that a container was given, which nothing can replace.
NO_PLACE_BESIDE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY)


class Output:
    """Standard output, or the file ``path``, whose old text stays until there is new. Raises ``HsdError`` for the file.

    The file is opened at once: whether it can be written should not show after minutes of work.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        with _named(path):
            self._stream = sys.stdout if path is None else path.open("a", encoding="utf-8", newline="")
        self._has_old_text = path is not None and path.is_file()
        self._terminal = self._stream.isatty()
        self._in_line = False

    def show(self, commit: Commit) -> None:
        """The text of one iteration."""
        self.write(commit.text)

    def write(self, text: str) -> None:
        """Appends ``text`` for whoever watches; a terminal gets what could control it only escaped."""
        with _named(self._path):
            if self._has_old_text:
                self._stream.truncate(0)
                self._has_old_text = False
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

    def __exit__(self, *_: object) -> None:
        if self._terminal and self._in_line:
            self.write("\n")
        if self._path is not None:
            with _named(self._path):
                self._stream.close()


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
