"""Showing text that nobody has vetted, and leaving a terminal as it was."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

# Line structure, and the joiners that scripts and emoji are made with.
HARMLESS = "\n\t\u200c\u200d"
SHOW_CURSOR = "\x1b[?25h"


def escape(data: bytes) -> str:
    """One printable line for any bytes, and different lines for different bytes.

    Invalid UTF-8 becomes ``\\xff``, invisible characters ``\\n``, ``\\x1b`` or ``\\u200b``, and a backslash ``\\\\``.
    """
    text = data.replace(b"\\", rb"\\").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(map(_escape_character, text))


def visible(text: str) -> str:
    """``text`` for a terminal: what could control it (escapes, control and format characters) is shown, not sent."""
    if text.isprintable():
        return text
    return "".join(c if c in HARMLESS or unicodedata.category(c) == "Zs" else _escape_character(c) for c in text)


def _escape_character(character: str) -> str:
    if character.isprintable():
        return character
    if "\x80" <= character <= "\xff":  # \xa0 is the byte, \u00a0 the character
        return f"\\u{ord(character):04x}"
    return character.encode("unicode_escape").decode()


def in_foreground(stream: TextIO) -> bool:
    """Whether the terminal is this process's to change, and not the shell's that has it in the background."""
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (AttributeError, OSError):  # Windows; a terminal of no session, or of another one
        return True


def restorer() -> Callable[[], None]:
    """What gives the terminal its modes of now and its cursor back: displays that are interrupted before they have come
    to their beginning do not."""
    out, typed = sys.stderr, sys.stdin
    modes = _modes(typed)

    def restore() -> None:
        with suppress(OSError):  # the terminal may be gone
            if out is not None and out.isatty() and in_foreground(out) and os.environ.get("TERM") != "dumb":
                out.write(SHOW_CURSOR)
                out.flush()
        if modes is not None and in_foreground(typed) and _modes(typed) != modes:
            import termios

            with suppress(termios.error):
                termios.tcsetattr(typed, termios.TCSADRAIN, modes)

    return restore


def _modes(stream: TextIO | None) -> list[Any] | None:
    """``None`` for what is no terminal, or is none any more."""
    try:
        import termios
    except ImportError:  # Windows
        return None
    try:
        return None if stream is None else termios.tcgetattr(stream)
    except (termios.error, OSError, ValueError):
        return None
