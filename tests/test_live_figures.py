"""What the live display shows, figure by figure."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.ui.live_figures import RECENT, LiveFigures, sparkline


class Run:
    """A generation whose iterations take as long as they are told to."""

    def __init__(self) -> None:
        self.clock = PhaseClock()
        generation: Any = SimpleNamespace(prompt=SimpleNamespace(ids=[0] * 1234), clock=self.clock)
        self.figures = LiveFigures(generation)
        self._seconds = 0.0

    def iteration(
        self, tokens: int = 1, *, drafted: int = 0, prefill: float = 0.0, draft: float = 0.0, verify: float = 0.0
    ) -> None:
        for name, seconds in (("prefill", prefill), ("draft", draft), ("verify", verify)):
            self.clock.seconds[name] += seconds
            self._seconds += seconds
        commit: Any = SimpleNamespace(
            pieces=[None] * tokens, algorithm="slem" if drafted else "ar", drafted=drafted, accepted=tokens - 1,
            seconds=self._seconds,
        )  # fmt: skip
        self.figures.add(commit)

    @property
    def rows(self) -> list[str]:
        return [row.plain for row in self.figures.rows()]


def test_before_the_first_token_the_prompt_is_being_read() -> None:
    assert Run().rows == ["reading the prompt: 1,234 tokens"]


def test_every_figure_is_a_count_or_a_time_of_this_run() -> None:
    run = Run()
    run.iteration(prefill=5, verify=1)
    assert run.rows == [
        "ar  ·  1 tokens  ·  1.0 tokens/s  ·  ×1.00 of plain decoding",
        "nothing drafted yet  ·  1.00 tokens/pass",
        "draft 0%  ·  verify 100%  ·  translate 0%",
    ]
    run.iteration(4, drafted=5, draft=0.5, verify=1.5)
    run.iteration(1, drafted=1, draft=0.25, verify=0.75)
    assert run.rows == [
        "slem  ·  6 tokens  ·  1.5 tokens/s  ·  ×1.50 of plain decoding",
        "accepted  50% ▅▁  ·  2.00 tokens/pass  ·  lookahead 1",
        "draft 19%  ·  verify 81%  ·  translate 0%",
    ]


def test_without_a_plain_pass_no_speedup_is_claimed() -> None:
    run = Run()
    run.iteration(2, drafted=1, verify=1)
    assert run.rows[0] == "slem  ·  2 tokens  ·  2.0 tokens/s  ·  plain decoding not timed"


def test_a_plain_pass_costs_what_the_target_took_in_the_median() -> None:
    run = Run()
    for seconds in (9, 1, 2):  # the first warms something up
        run.iteration(verify=seconds, draft=7)  # a drafter that came to nothing is no part of plain decoding
    assert run.figures.speedup == pytest.approx(3 * 2 / (12 + 21))


def test_the_sparkline_is_of_recent_drafts() -> None:
    assert sparkline(deque([0, 0.124, 0.125, 0.5, 0.99, 1])) == "▁▁▂▅██"
    run = Run()
    for _ in range(RECENT):
        run.iteration(1, drafted=1)
    for _ in range(RECENT - 1):
        run.iteration(2, drafted=1)
    assert f" ▁{'█' * (RECENT - 1)}  " in run.rows[1]
