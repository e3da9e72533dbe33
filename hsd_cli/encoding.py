"""The encoding of text that is read: UTF-8, unless a byte order mark says otherwise."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from io import TextIOWrapper
from typing import IO

from hsd_cli.errors import HsdError

# As PowerShell and Windows' editors write them. UTF-32's begins with one of UTF-16, so that it comes first.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LONGEST_MARK = 4


def decoded(data: bytes, errors: str = "strict") -> str:
    """``data`` as its mark says, without the mark; what that does not fit is taken for UTF-8 with ``errors``.

    Raises ``UnicodeDecodeError``.
    """
    mark, encoding = marked(data)
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        return data.decode("utf-8-sig", errors)


def marked(beginning: bytes) -> tuple[bytes, str]:
    """The mark that a text has at its ``beginning``, if it has one, and its encoding."""
    return next(((mark, encoding) for mark, encoding in MARKS if beginning.startswith(mark)), (b"", "utf-8"))


def utf8_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file that can seek, in UTF-8 whatever its mark says. Raises ``HsdError``."""
    beginning = stream.read(LONGEST_MARK)
    mark, encoding = marked(beginning)
    stream.seek(len(mark) - len(beginning), 1)
    if encoding == "utf-8":
        yield from stream
        return
    text = TextIOWrapper(stream, encoding, newline="\n")
    try:
        for line in text:
            yield line.encode()
    except UnicodeDecodeError:
        raise not_as_marked(encoding) from None
    finally:
        text.detach()


class Transcoder:
    """The same for what comes in chunks."""

    def __init__(self) -> None:
        self._beginning: bytes | None = b""  # until it is known which mark there is
        self._encoding = "utf-8"
        self._decoder: codecs.IncrementalDecoder | None = None

    def utf8(self, chunk: bytes) -> bytes:
        """As much as there is of ``chunk``, and of what was held back; an empty one is the end."""
        if self._beginning is not None:
            self._beginning += chunk
            if chunk and len(self._beginning) < LONGEST_MARK:
                return b""
            mark, self._encoding = marked(self._beginning)
            known, self._beginning = self._beginning[len(mark) :], None
            if self._encoding != "utf-8":
                self._decoder = codecs.getincrementaldecoder(self._encoding)()
            return self._converted(known, final=not chunk)
        return self._converted(chunk, final=not chunk)

    def _converted(self, data: bytes, final: bool) -> bytes:
        if self._decoder is None:
            return data
        try:
            return self._decoder.decode(data, final).encode()
        except UnicodeDecodeError:
            raise not_as_marked(self._encoding) from None


def not_as_marked(encoding: str) -> HsdError:
    """For a text whose mark is of an ``encoding`` that it is not in."""
    name = encoding[: len("utf-16")].upper()
    return HsdError(f"the records are not the {name} that their byte order mark says; convert them to UTF-8")
