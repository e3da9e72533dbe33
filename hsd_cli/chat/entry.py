"""What was typed: a message, or a command."""

from __future__ import annotations

from typing import NamedTuple

SLASH = "/"
BLOCK = '"""'  # around a message of several lines


class Command(NamedTuple):
    name: str
    argument: str


def is_open(text: str) -> bool:
    """Whether ``text`` begins a block that has not ended: more lines belong to it."""
    return text.lstrip().startswith(BLOCK) and BLOCK not in text.lstrip().removeprefix(BLOCK)


def parse(text: str) -> Command | str:
    """A command, or the message itself: empty if there is nothing to send.

    A block is a message whatever it contains, and a line that begins with two slashes is one that begins with one.
    """
    text = text.strip()
    if text.startswith(BLOCK):
        inside, _, behind = text.removeprefix(BLOCK).partition(BLOCK)
        return (inside + behind).strip("\n")
    if text.startswith(2 * SLASH):
        return text.removeprefix(SLASH)
    if text.startswith(SLASH):
        name, *argument = text.removeprefix(SLASH).split(maxsplit=1)[:2] or [""]
        return Command(name, "".join(argument))
    return text
