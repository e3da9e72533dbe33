"""What Ctrl-C does while there is nothing to lose yet, and while something is being made that must not be lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from hsd_cli.errors import EXIT_INTERRUPTED


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Ctrl-C ends the process here and now: there is no text to keep yet, and an exception would be lost in imports."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a shell's background job ignores the signal
        signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def holding_interrupts() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block: what is made in it is there for whoever catches the interrupt."""
    before = signal.getsignal(signal.SIGINT)
    held: list[int] = []
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt
