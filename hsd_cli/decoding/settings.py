"""How a text is to be drawn. Apart from what draws it, so that a wrong setting is refused before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from typing import Literal, get_args

from hsd_cli.errors import UsageError

Verification = Literal["rejection", "coupled"]
VERIFICATIONS: tuple[str, ...] = get_args(Verification)


@dataclass(frozen=True)
class SamplingSettings:
    """Temperature 0 is greedy decoding; the defaults of the others change nothing. Raises ``UsageError``.

    The bounds of temperature and penalty keep float32 logits finite.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        checks = (
            (
                self.temperature == 0 or 1e-5 <= self.temperature < inf,
                f"--temperature must be 0 (greedy) or at least 1e-5, not {self.temperature}",
            ),
            (self.top_k >= 0, f"--top-k must be 0 (off) or more, not {self.top_k}"),
            (0 < self.top_p <= 1, f"--top-p must be above 0 and at most 1 (off), not {self.top_p}"),
            (0 <= self.min_p <= 1, f"--min-p must be from 0 (off) to 1, not {self.min_p}"),
            (
                1e-5 <= self.repetition_penalty <= 1e5,
                f"--repetition-penalty must be from 1e-5 to 1e5, and 1 is off, not {self.repetition_penalty}",
            ),
        )
        for holds, sentence in checks:
            if not holds:
                raise UsageError(sentence)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


SAMPLING = tuple(field.name for field in fields(SamplingSettings))
