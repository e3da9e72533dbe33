"""What the live display costs: the same text written with it and streamed plainly, to a terminal that is read.

``python -m benchmarks.live``: repeats alternate, as does which of the two comes first, and the ratio of each pair is
what counts.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import threading
from argparse import ArgumentParser
from contextlib import suppress
from statistics import median
from time import perf_counter
from typing import TextIO

from hsd_cli.engine import Engine, Request
from hsd_cli.runtime.loading import load_model
from hsd_cli.ui.live import LiveDisplay
from hsd_cli.ui.terminal import visible

PROMPT = "class Stack:\n"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--algorithm", default="slem")
    options = parser.parse_args()
    engine = Engine(load_model("embedded:target", "cpu"), load_model("embedded:drafter", "cpu"))
    request = Request(PROMPT, algorithm=options.algorithm, lookahead=4, max_new_tokens=options.tokens)
    own, terminal = pty.openpty()
    fcntl.ioctl(own, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # without a size no figures are drawn
    threading.Thread(target=_read, args=(own,), daemon=True).start()
    ratios = []
    with open(terminal, "w") as out:
        for repeat in range(options.repeats + 1):
            order = (False, True) if repeat % 2 else (True, False)
            seconds = {live: _seconds(engine, request, out, live) for live in order}
            if repeat:  # the first is the warm-up
                ratios.append(seconds[False] / seconds[True])
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"throughput with the live display, times plain streaming: {median(ratios):.3f} ({spread})")


def _seconds(engine: Engine, request: Request, out: TextIO, live: bool) -> float:
    engine.forget()
    begun = perf_counter()
    generation = engine.generate(request)
    if live:
        with LiveDisplay(generation, out) as display:
            for commit in generation.commits:
                display.show(commit)
    else:
        for commit in generation.commits:
            out.write(visible(commit.text))
            out.flush()
    return perf_counter() - begun


def _read(terminal: int) -> None:
    with suppress(OSError):  # how Linux says that the other side is closed
        while os.read(terminal, 1 << 16):
            pass


if __name__ == "__main__":
    main()
