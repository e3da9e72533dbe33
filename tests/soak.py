"""Long runs of the embedded pair: does memory grow, and is the end as fast as the beginning?

``python -m tests.soak [TOKENS]`` has so many tokens (20,000) written in one chat, turn by turn and far beyond the
context, and as many in a batch, by the commands themselves. Minutes. Exit code 1 if something grew, or got slower.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import IO

COMMAND = [sys.executable, "-m", "hsd_cli"]
MODELS = ["-t", "embedded:target", "-d", "embedded:drafter", "--temperature", "1", "-n", "256"]
SAMPLES = 20
ALLOWED = 0.02  # of the memory, or 1.5 MB: what texts and their counts take as long as they are kept
SLOWER = 0.8  # of the tokens per second of a processor: what else the machine does is noise
QUESTIONS = ("def fibonacci(n):", "import os", "class Queue:", "for line in file:", "昨日、", "The function returns")


@dataclass(frozen=True)
class Sample:
    """After ``tokens`` in all: the process's memory in MB, and how fast the last of them came, by the clock and by the
    processor's time."""

    tokens: int
    memory: float
    speed: float
    work: float


def memory_of(process: subprocess.Popen[bytes]) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def processor_time(process: subprocess.Popen[bytes]) -> float:
    """Seconds so far."""
    behind_name = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, behind_name[11:13])) / os.sysconf("SC_CLK_TCK")


def started(command: str, *options: str, read: str) -> subprocess.Popen[bytes]:
    """The command, of whose output this one stream is read."""
    pipes = {read: subprocess.PIPE}
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(
        [*COMMAND, command, *MODELS, *options],
        stdin=subprocess.PIPE,
        stdout=pipes.get("stdout", nowhere),
        stderr=pipes.get("stderr", nowhere),
        bufsize=0,
    )


def ask(stream: IO[bytes] | None, line: str) -> None:
    assert stream is not None
    stream.write(line.encode() + b"\n")


def answers(process: subprocess.Popen[bytes]) -> Iterator[tuple[int, float]]:
    """Tokens and seconds of each turn of a chat."""
    assert process.stderr is not None
    for turn in count(1):
        ask(process.stdin, f"{QUESTIONS[turn % len(QUESTIONS)]} {turn}")
        while not (found := re.match(rb"(\d+) tokens in ([\d.]+) s", line := process.stderr.readline())):
            assert line, "the chat has ended"
        yield int(found[1]), float(found[2])


def results(process: subprocess.Popen[bytes]) -> Iterator[tuple[int, float]]:
    """The same of each record of a batch."""
    assert process.stdout is not None
    for number in count(1):
        ask(process.stdin, json.dumps({"prompt": f"{QUESTIONS[number % len(QUESTIONS)]} # {number}"}))
        result = json.loads(process.stdout.readline())
        yield result["tokens"], result["seconds"]


def soaked(process: subprocess.Popen[bytes], texts: Iterator[tuple[int, float]], wanted: int) -> Iterator[Sample]:
    """A sample for each of ``SAMPLES`` parts of the run."""
    written, before = next(texts)[0], processor_time(process)  # until then it was loading
    for part in range(1, SAMPLES + 1):
        tokens, seconds = 0, 0.0
        while not tokens or written + tokens < part * wanted / SAMPLES:
            more, took = next(texts)
            tokens, seconds = tokens + more, seconds + took
        written += tokens
        now = processor_time(process)
        yield Sample(written, memory_of(process), tokens / seconds, tokens / (now - before))
        before = now


def verdict(samples: list[Sample]) -> list[str]:
    """What is wrong. The first third fills the caches, and the context of a chat."""
    third = len(samples) // 3
    middle, end = samples[third : 2 * third], samples[-third:]
    grown = median(sample.memory for sample in end) - median(sample.memory for sample in middle)
    speeds = [median(sample.work for sample in part) for part in (middle, end)]
    wrong = []
    if grown > max(1.5, ALLOWED * middle[0].memory):
        wrong.append(f"memory grows: {grown:.1f} MB from the middle to the end")
    if speeds[1] < SLOWER * speeds[0]:
        wrong.append(
            f"it gets slower: {speeds[0]:.0f} tokens per processor second in the middle, {speeds[1]:.0f} at last"
        )
    return wrong


def run(process: subprocess.Popen[bytes], texts: Iterator[tuple[int, float]], wanted: int) -> bool:
    """Whether nothing is wrong."""
    print(f"{'tokens':>8}{'MB':>9}{'tokens/s':>10}{'tokens/CPU s':>14}", flush=True)
    samples = []
    with process:
        for sample in soaked(process, texts, wanted):
            samples.append(sample)
            print(f"{sample.tokens:8}{sample.memory:9.1f}{sample.speed:10.0f}{sample.work:14.0f}", flush=True)
        process.kill()
    wrong = verdict(samples)
    print("\n".join(wrong) or "no growth, and as fast at the end as in the middle", flush=True)
    return not wrong


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HSD_HISTORY"] = folder
        print("chat")
        chat = started("chat", read="stderr")
        sound = run(chat, answers(chat), wanted)
        print("batch")
        batch = started("generate", "-i", "-", read="stdout")
        sound &= run(batch, results(batch), wanted)
    sys.exit(not sound)


if __name__ == "__main__":
    main()
