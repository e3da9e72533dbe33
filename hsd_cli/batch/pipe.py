"""Lines that somebody still writes: what is there can be had while the rest is waited for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from select import select

from hsd_cli.batch.places import naming
from hsd_cli.encoding import Transcoder

CHUNK = 1 << 16  # bytes: what a pipe holds


class PipeLines:
    """Iterate over the lines of ``descriptor``, which is the file ``place``. A chunk at most is read ahead.

    Both ways of asking raise ``HsdError`` for what cannot be read.
    """

    def __init__(self, descriptor: int, place: str) -> None:
        self._descriptor = descriptor
        self._place = place
        self._lines: deque[bytes] = deque()
        self._rest = bytearray()  # of a line that has not come to its end
        self._ended = False
        self._transcoder = Transcoder()

    def __iter__(self) -> Iterator[bytes]:
        while self._lines or not self._ended:
            if self._lines:
                yield self._lines.popleft()
            else:
                self._read(None)

    def ready(self) -> bool:
        """Whether there is a line that is not blank, or the end, so that nothing has to be waited for."""
        while not self._ended and all(map(bytes.isspace, self._lines)):
            if not self._read(0):
                return False
        return True

    def _read(self, seconds: float | None) -> bool:
        """Waits no longer than that; false if nothing came."""
        if not select([self._descriptor], [], [], seconds)[0]:
            return False
        with naming("read", self._place):
            chunk = os.read(self._descriptor, CHUNK)
        self._ended = not chunk
        chunk = self._transcoder.utf8(chunk)
        self._rest += chunk
        if b"\n" in chunk:
            *lines, self._rest = self._rest.split(b"\n")
            self._lines.extend(bytes(line) + b"\n" for line in lines)
        if self._ended and self._rest:
            self._lines.append(bytes(self._rest))
        return True
