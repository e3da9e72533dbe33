"""Showing text that nobody has vetted."""

from __future__ import annotations

import unicodedata

# Line structure, and the joiners that scripts and emoji are made with.
HARMLESS = "\n\t\u200c\u200d"


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
