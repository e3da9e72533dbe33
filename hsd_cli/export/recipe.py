"""What serves a pair on another engine, or why nothing does."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

DRAFTED = 5  # tokens a draft, where the engine wants a number


class Fact(NamedTuple):
    """Something about an engine, and where it says so."""

    says: str
    source: str

    def __str__(self) -> str:
        return f"{self.says} ({self.source})"


@dataclass(frozen=True)
class Recipe:
    """``text`` runs as it stands, in a shell or in Python. ``algorithm`` is our name for what the engine then does."""

    engine: str
    language: Literal["sh", "python"]
    text: str
    algorithm: str
    limits: tuple[Fact, ...]

    def json(self) -> str:
        """One object."""
        limits = [fact._asdict() for fact in self.limits]
        return json.dumps({"runs": True, **asdict(self), "limits": limits}, indent=2)


@dataclass(frozen=True)
class Refusal:
    """The engine cannot run the pair ``because``."""

    engine: str
    because: tuple[Fact, ...]

    def __str__(self) -> str:
        return f"{self.engine} cannot run this pair, because {'; '.join(map(str, self.because))}"

    def json(self) -> str:
        """One object."""
        because = [fact._asdict() for fact in self.because]
        return json.dumps({"runs": False, "engine": self.engine, "because": because}, indent=2)
