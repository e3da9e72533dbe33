"""One thing that was looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """``remedy`` is what to do next, where something is wrong."""

    state: State
    text: str
    remedy: str | None = None

    @classmethod
    def failure(cls, error: Exception) -> Finding:
        """That looking itself failed."""
        return cls("broken", f"{type(error).__name__}: {' '.join(str(error).split())}")


@dataclass(frozen=True)
class Check:
    name: str
    look: Callable[[], Finding]

    def finding(self) -> Finding:
        """What ``look`` finds; whatever it raises is itself a finding."""
        try:
            return self.look()
        except Exception as error:
            return Finding.failure(error)


def checks_of(section: Callable[[], Iterator[Check]]) -> list[Check]:
    """All of them, or the one that shows why they cannot be listed."""
    try:
        return list(section())
    except Exception as error:
        failure = Finding.failure(error)
        return [Check(section.__name__, lambda: failure)]
