"""What was counted and measured while a text was generated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Statistics:
    """Counts of one generation. ``cached_prompt_tokens`` were read with an earlier text and not again.

    ``accepted_at[i]``/``drafted_at[i]``: proposals at place ``i`` of their draft. ``iterations_by``: per algorithm.
    ``drafter_failure``: why the text went on without the drafter, if so. ``drafter_refusal``: why the drafter's
    template did not take the prompt, if so.
    """

    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    tokens: int = 0
    iterations: int = 0
    drafted: int = 0
    accepted: int = 0
    drafted_at: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)

    iterations_by: Counter[str] = field(default_factory=Counter)
    drafter_failure: str | None = None
    drafter_refusal: str | None = None

    def count(self, algorithm: str, drafted: int, accepted: int, emitted: int) -> None:
        """Adds one iteration: ``emitted`` tokens came out of it."""
        self.iterations += 1
        self.iterations_by[algorithm] += 1
        self.tokens += emitted
        self.drafted += drafted
        self.accepted += accepted
        missing = drafted - len(self.drafted_at)
        self.drafted_at += [0] * missing
        self.accepted_at += [0] * missing
        for place in range(drafted):
            self.drafted_at[place] += 1
            self.accepted_at[place] += place < accepted

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted over drafted tokens; ``None`` where nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_iteration(self) -> float | None:
        return self.tokens / self.iterations if self.iterations else None
