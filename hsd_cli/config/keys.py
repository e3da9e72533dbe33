"""The names of what can be configured: ``KEY``, and ``pairs.NAME.KEY``."""

from __future__ import annotations

PAIRS = "pairs"  # the table of tables


def split_key(key: str) -> list[str]:
    """``[KEY]``, or ``["pairs", NAME, KEY]`` for ``pairs.NAME.KEY``, where NAME may have dots of its own."""
    first, _, rest = key.partition(".")
    name, _, last = rest.rpartition(".")
    return [first, name, last] if first == PAIRS and name else [key]
