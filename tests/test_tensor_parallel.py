"""`torchrun -m hsd_cli generate --tensor-parallel`: two processes on a CPU, each with half of the target."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import distributed
from torch.distributed.tensor import Shard, distribute_tensor

from hsd_cli.errors import HsdError
from hsd_cli.runtime.following import LeadingModel
from hsd_cli.runtime.loading import load_model
from hsd_cli.runtime.quantization import weight_bytes
from hsd_cli.runtime.ranks import Ranks, Step
from tests.breadth import thorough
from tests.cli import hsd

PAIR = ["-t", "embedded:twin", "-d", "embedded:drafter"]  # of two vocabularies; the twin's heads can be halved
COMMAND = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
COMMAND += ["-m", "hsd_cli", "generate", "--tensor-parallel"]
PROMPT = "class Stack:\n    def __init__(self"
RECORDS: dict[str, dict[str, Any]] = {
    f"{algorithm} {name}": {"algorithm": algorithm, **settings}
    for algorithm in ("ar", "lookup", "slem", "slrs", "tli", "union", "auto")
    for name, settings in (("greedy", {}), ("sampled", {"temperature": 1.0, "seed": 3}))
} | {"a stop string": {"stop": ["self"]}, "drafts of three": {"lookahead": 3, "algorithm": "slem"}}


def started(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )


def ours(err: bytes) -> list[str]:
    """What `hsd` says, without torchrun's own report."""
    return [line for line in err.decode().splitlines() if line.startswith("hsd: ")]


@thorough
def test_texts_are_those_of_one_process(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    lines = ({"id": name, "prompt": PROMPT, **settings} for name, settings in RECORDS.items())
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = [*PAIR, "--raw", "-n", 20, "-i", records]
    together = started(*options)
    out, err = together.communicate(timeout=240)
    assert together.returncode == 0, err.decode()
    assert len(ours(err)) == 1  # the summary, of the one process that talks
    alone = hsd("generate", *options)
    for line, expected in zip(map(json.loads, out.splitlines()), map(json.loads, alone.out.splitlines()), strict=True):
        assert (line["id"], line["text"]) == (expected["id"], expected["text"])


@thorough
def test_when_a_process_is_killed_the_others_end_too() -> None:
    run = started(*PAIR, "-n", 1500, "import os")
    assert run.stdout is not None
    assert run.stdout.read(1)  # the text has begun
    first, second = sorted(psutil.Process(run.pid).children(), key=lambda child: child.environ()["RANK"])
    second.kill()
    _, err = run.communicate(timeout=240)
    assert run.returncode != 0
    assert not first.is_running()
    assert set(ours(err)) <= {"hsd: another process of --tensor-parallel has ended, or does not answer"}


@thorough
def test_what_cannot_be_loaded_is_said_once() -> None:
    run = started("-t", "embedded:target", "x")
    _, err = run.communicate(timeout=240)
    assert run.returncode != 0
    [line] = ours(err)
    assert line.endswith("6 attention heads and 3 key-value heads of 'embedded:target'; 3 can")


def test_without_torchrun_it_is_said_how() -> None:
    done = hsd("generate", "--tensor-parallel", "x")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "torchrun --standalone --nproc-per-node 2 -m hsd_cli generate --tensor-parallel" in done.err


@pytest.mark.parametrize("other", [("--quant", "int8"), ("--device-map", "auto"), ("--device", "cpu")])
def test_options_that_do_not_go_with_it(other: tuple[str, str]) -> None:
    done = hsd("generate", "--tensor-parallel", *other, "x")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "--tensor-parallel" in done.err


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ranks]:
    """All the processes there are: one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    yield Ranks()
    distributed.destroy_process_group()


def test_a_step_that_fails_is_the_last(alone: Ranks) -> None:
    with alone.step(Step.LOAD) as told, alone.step(Step.READ) as told_again:
        assert (told, told_again) == (True, False)
    with pytest.raises(HsdError, match="ran out of memory"), alone.step(Step.READ):
        raise torch.OutOfMemoryError
    with pytest.raises(HsdError, match="out of step"), alone.step(Step.READ):
        pytest.fail("the others are elsewhere")


def test_a_process_that_cannot_load_stops_all(alone: Ranks) -> None:
    alone.agree(None)
    with pytest.raises(HsdError, match="no such model"):
        alone.agree("no such model")


def test_a_share_takes_what_lies_here(alone: Ranks) -> None:
    mesh = distributed.init_device_mesh("cpu", (alone.size,))
    assert weight_bytes(distribute_tensor(torch.zeros(4, 4), mesh, [Shard(0)])) == 4 * 4 * 4


def test_there_is_one_text_at_a_time(alone: Ranks) -> None:
    model = load_model("embedded:twin").model
    first = LeadingModel(model, 8, alone)
    first.run(torch.tensor([1, 2]))
    second = LeadingModel(model, 8, alone)
    second.run(torch.tensor([1, 2]))
    with pytest.raises(HsdError, match="one text at a time"):
        first.run(torch.tensor([3]))
