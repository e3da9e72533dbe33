"""Signals: being told to end, and what Ctrl-C does while there is nothing to lose yet, and while something is made."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What tells a process to end: somebody, or the terminal that is closed (not on Windows).
ENDING = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


def told_to_end() -> list[int]:
    """From now on a process that is told to end raises ``SystemExit``, so that what is there is kept.

    The list then has the exit code.
    """
    told: list[int] = []

    def end(number: int, _: object) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)  # who closes a terminal says so several times
        told.append(128 + number)
        sys.exit(told[0])

    for each in ENDING:
        if signal.getsignal(each) is not signal.SIG_IGN:  # as under nohup
            signal.signal(each, end)
    return told


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Ctrl-C, or being told to end, ends the process here and now: there is no text to keep yet, and an exception would
    be lost in imports."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    for number, handler in before.items():
        if callable(handler):  # a shell's background job ignores Ctrl-C
            signal.signal(number, lambda number, _: os._exit(128 + number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
