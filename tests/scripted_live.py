"""A live display that shows what it is told: `python -m tests.scripted_live PIPE`, a line of JSON per iteration.

A line is `[[text, drafted], ...]`. At the end of the pipe the text ends, and the number of frames is printed.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter
from types import SimpleNamespace
from typing import Any

from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.ui.live import LiveDisplay, can_be_live


def main() -> None:
    if not can_be_live(sys.stdout, sys.stderr):
        sys.exit("not live")
    clock = PhaseClock()
    generation: Any = SimpleNamespace(prompt=SimpleNamespace(ids=[0] * 1234), clock=clock)
    begun = perf_counter()
    with open(sys.argv[1]) as pipe, LiveDisplay(generation, sys.stdout) as display:
        for line in pipe:
            pieces = [SimpleNamespace(text=text, drafted=drafted) for text, drafted in json.loads(line)]
            drafted = sum(piece.drafted for piece in pieces)
            with clock.phase("verify"):
                pass
            commit: Any = SimpleNamespace(
                pieces=pieces, algorithm="slem" if drafted else "ar", drafted=2 * drafted, accepted=drafted,
                seconds=perf_counter() - begun, tail="",
            )  # fmt: skip
            display.show(commit)
    print(f"{display.frames} frames in {perf_counter() - begun} s")


if __name__ == "__main__":
    main()
