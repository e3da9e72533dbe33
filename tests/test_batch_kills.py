"""Many texts, killed at any moment: nothing that was done is lost, done twice, or half there."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from random import Random
from time import sleep

import pytest

from hsd_cli.app import main
from tests.breadth import breadth
from tests.cli import checkpoint, hsd


def begun(arguments: list[str]) -> int:
    """The command in a fork of this process, whose libraries are loaded; its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's threads: with one thread it uses none of them
        child = os.fork()
    if child == 0:
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            sys.argv = ["hsd", *arguments]
            main()
        finally:
            os._exit(0)
    return child


@pytest.mark.parametrize(("kills", "records"), breadth([(5, 120), (50, 400)], quick=[(5, 120)]))
def test_kills_lose_nothing(kills: int, records: int, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", sharpness=3)
    source, output, whole = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "whole.jsonl"))
    source.write_text("".join(json.dumps({"id": f"r{n}", "prompt": "ab"[n % 2]}) + "\n" for n in range(records)))
    arguments = ["generate", "-q", "-t", model, "-a", "lookup", "-n", "24", "--temperature", "1", "--seed", "7"]
    arguments += ["-i", str(source), "-o"]
    assert hsd(*arguments, whole).code == 0
    random, killed = Random(0), 0
    for _ in range(kills):
        before = output.stat().st_size if output.exists() else 0
        more = random.choice([0, 1, 1500])  # while it starts, at its first result, some results later
        child = begun([*arguments, str(output)])
        while more and (output.stat().st_size if output.exists() else 0) < before + more:
            if os.waitpid(child, os.WNOHANG)[0]:
                raise AssertionError("it came to its end before it was killed")
            sleep(0.0005)
        sleep(random.uniform(0, 0.02 if more else 0.2))
        os.kill(child, signal.SIGKILL)
        killed += os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert killed == kills
    assert hsd(*arguments, output).code == 0
    texts = [
        {each["id"]: each["text"] for each in map(json.loads, path.read_text().splitlines())}
        for path in (output, whole)
    ]
    assert texts[0] == texts[1]
    assert len(output.read_text().splitlines()) == records
