"""The figures of a text that is being written, each counted or measured in this run, as rows of the live display."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from hsd_cli.decoding.loop import Commit
    from hsd_cli.engine import Generation

BARS = "▁▂▃▄▅▆▇█"
RECENT = 24  # drafts in the sparkline
PLAIN_PASSES = 100  # that the speed-up is reckoned from: the machine and the length of the text change
PHASES = ("draft", "verify", "translate")


class LiveFigures:
    """Follows one generation."""

    def __init__(self, generation: Generation) -> None:
        self._prompt_tokens = len(generation.prompt.ids)
        self._clock = generation.clock
        self._algorithm = ""
        self._tokens = 0
        self._iterations = 0
        self._drafted = 0
        self._accepted = 0
        self._last_draft = 0
        self._decoding_seconds = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._plain_passes: deque[float] = deque(maxlen=PLAIN_PASSES)
        self._spent = 0.0
        self._verified = 0.0

    def add(self, commit: Commit) -> None:
        self._algorithm = commit.algorithm
        self._tokens += len(commit.pieces)
        self._iterations += 1
        self._drafted += commit.drafted
        self._accepted += commit.accepted
        self._decoding_seconds = commit.seconds - self._clock.seconds["prefill"]
        verified = self._clock.seconds["verify"]
        if commit.drafted:
            self._last_draft = commit.drafted
            self._recent.append(commit.accepted / commit.drafted)
        else:
            self._plain_passes.append(verified - self._verified)
        self._spent, self._verified = sum(self._phase_seconds()), verified

    def rows(self) -> list[Text]:
        """What to show below the text, one line each."""
        if not self._iterations:
            return [Text(f"reading the prompt: {self._prompt_tokens:,} tokens", "dim")]
        return [_row(self._pace()), _row(self._drafts()), _row(self._times())]

    @property
    def speedup(self) -> float | None:
        """What plain decoding would have taken for these tokens, by its own passes in this run, over what was taken.

        ``None`` while no pass without a draft was measured.
        """
        if not self._plain_passes or not self._spent:
            return None
        return self._tokens * median(self._plain_passes) / self._spent

    def _pace(self) -> list[Text]:
        cells = [Text(self._algorithm, "bold cyan"), Text(f"{self._tokens:,} tokens")]
        if self._decoding_seconds > 0:
            cells.append(Text(f"{self._tokens / self._decoding_seconds:.1f} tokens/s", "bold"))
        speedup = self.speedup
        words = "plain decoding not timed" if speedup is None else f"×{speedup:.2f} of plain decoding"
        return [*cells, Text(words, "dim" if speedup is None else "bold")]

    def _drafts(self) -> list[Text]:
        per_pass = Text(f"{self._tokens / self._iterations:.2f} tokens/pass")
        if not self._drafted:
            return [Text("nothing drafted yet", "dim"), per_pass]
        rate = Text(f"accepted {self._accepted / self._drafted:4.0%} ").append(sparkline(self._recent), "green")
        return [rate, per_pass, Text(f"lookahead {self._last_draft}")]

    def _times(self) -> list[Text]:
        seconds = self._phase_seconds()
        total = sum(seconds) or 1.0
        return [Text(f"{name} {part / total:.0%}", "dim") for name, part in zip(PHASES, seconds, strict=True)]

    def _phase_seconds(self) -> list[float]:
        return [self._clock.seconds[name] for name in PHASES]


def sparkline(shares: deque[float]) -> str:
    """One bar per share (0 to 1)."""
    return "".join(BARS[min(int(share * len(BARS)), len(BARS) - 1)] for share in shares)


def _row(cells: list[Text]) -> Text:
    parts: list[Text | tuple[str, str]] = []
    for cell in cells:
        parts += [("  ·  ", "dim"), cell]
    return Text.assemble(*parts[1:])
