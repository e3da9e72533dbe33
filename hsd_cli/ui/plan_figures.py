"""Numbers as people read them."""

from __future__ import annotations

COUNTS = ((10**12, " T"), (10**9, " B"), (10**6, " M"), (10**3, " k"), (1, ""))
SIZES = ((10**12, " TB"), (10**9, " GB"), (10**6, " MB"), (10**3, " kB"), (1, " B"))


def count(number: int) -> str:
    """``5.66 M``; three digits are enough."""
    return _scaled(number, COUNTS)


def size(number: int) -> str:
    """Bytes in decimal units: ``15.2 GB``."""
    return _scaled(number, SIZES)


def span(low: float | None, high: float | None) -> str:
    """``0.15 to 0.66``, or one number if both look the same; ``None`` is out of reach."""
    first, last = ("never" if value is None else f"{value:.2f}" for value in (low, high))
    return first if first == last else f"{first} to {last}"


def _scaled(number: int, units: tuple[tuple[int, str], ...]) -> str:
    for unit, name in units:
        if number >= unit:
            return f"{number / unit:.3g}{name}" if number < 999.5 * unit else f"{number / unit:.0f}{name}"
    return f"0{units[-1][1]}"
