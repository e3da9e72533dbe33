"""Numbers that the host has to know: where it waits for the device.

Several texts at a time wait together. So what each of them has the device do is under way before the first wait, and
there is one wait for all.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import torch
from greenlet import getcurrent, greenlet


class WaitingTogether:
    """Where the texts of one thread meet that wait for a device. ``join`` and ``wait_for`` are called by their
    greenlets, ``run`` by the greenlet that made those."""

    def __init__(self) -> None:
        self._wanted: dict[greenlet, torch.Tensor] = {}

    def __len__(self) -> int:
        """The number of texts that wait."""
        return len(self._wanted)

    def join(self) -> None:
        """From now on this text waits with the others."""
        _together.set(self)

    def wait_for(self, values: torch.Tensor) -> list[Any]:
        text = getcurrent()
        assert text.parent is not None, "only texts in greenlets can wait for each other"
        self._wanted[text] = values
        try:
            numbers: list[Any] = text.parent.switch()
        finally:
            self._wanted.pop(text, None)  # also if the text is given up
        return numbers

    def run(self) -> None:
        """Waits for all; then each text goes on until it waits again, or leaves for another reason."""
        for text, numbers in _numbers(self._wanted).items():
            text.switch(numbers)


_together: ContextVar[WaitingTogether | None] = ContextVar("together", default=None)  # each greenlet has its own


def to_host(values: torch.Tensor) -> list[Any]:
    """What is in ``values`` (``[n]``)."""
    together = _together.get()
    return values.tolist() if together is None else together.wait_for(values)


def _numbers(wanted: dict[greenlet, torch.Tensor]) -> dict[greenlet, list[Any]]:
    """Of each text its own, with one copy from each device for all numbers of one kind."""
    kinds: dict[object, list[greenlet]] = {}
    for text, values in wanted.items():
        kinds.setdefault((values.device, values.dtype), []).append(text)
    found: dict[greenlet, list[Any]] = {}
    for texts in kinds.values():
        together = torch.cat([wanted[text] for text in texts]).cpu()
        parts = together.split([len(wanted[text]) for text in texts])
        found |= {text: part.tolist() for text, part in zip(texts, parts, strict=True)}
    return found
