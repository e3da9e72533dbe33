"""Ctrl-C while an answer is being written."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def noticing_interrupts() -> Iterator[Callable[[], bool]]:
    """Yields what tells whether Ctrl-C came: between two passes nothing breaks. A second one raises at once."""
    before = signal.getsignal(signal.SIGINT)
    noticed: list[int] = []

    def notice(number: int, _: object) -> None:
        if noticed:
            raise KeyboardInterrupt
        noticed.append(number)

    if before is signal.default_int_handler:  # a shell's background job ignores the signal
        signal.signal(signal.SIGINT, notice)
    try:
        yield lambda: bool(noticed)
    finally:
        signal.signal(signal.SIGINT, before)
