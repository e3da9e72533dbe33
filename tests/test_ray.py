"""Batches over a Ray cluster of three nodes on this machine, whose workers, nodes and drivers are killed."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from hsd_cli.batch.records import Failure, Record
from hsd_cli.batch.sources import opened
from hsd_cli.batch_engine import BatchEngine, Text
from hsd_cli.cluster.joining import SURROUNDINGS, Workers, join, workers
from hsd_cli.engine import Engine, Request
from hsd_cli.errors import HsdError
from hsd_cli.runtime.loading import load_model
from tests.breadth import thorough
from tests.cli import checkpoint, hsd, started_hsd

ray = pytest.importorskip("ray")
pytest.importorskip("pyarrow")
psutil = pytest.importorskip("psutil")

# Ray Data warns of settings that it reads itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

RECORDS = 40
LIMIT = 180.0  # seconds until waiting is given up
OBJECTS = 80 * 1024 * 1024  # bytes of shared memory for each node
SAMPLED = ["-n", "120", "--temperature", "1", "--seed", "7", "-a", "lookup"]


class Nodes:
    """A cluster whose first node is its head; each has one CPU, and so one worker."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args=self._size())
        self._others = [self._cluster.add_node(**self._size()) for _ in range(2)]
        self.address = str(self._cluster.address)

    @staticmethod
    def _size() -> dict[str, Any]:
        return {"num_cpus": 1, "object_store_memory": OBJECTS, "include_dashboard": False}

    def lose_one(self) -> None:
        self._cluster.remove_node(self._others.pop(), allow_graceful=False)

    def stop(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SURROUNDINGS, "HF_HUB_OFFLINE": "1"}.items():
            patch.setenv(name, value)
        patch.setenv("HSD_CACHE", str(tmp_path_factory.mktemp("cache of the nodes")))
        started = Nodes()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Every seed gives another text."""
    return checkpoint(tmp_path_factory.mktemp("model"), sharpness=3)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "in.jsonl"
    records = [{"id": f"r{number}", "prompt": "ab"[number % 2]} for number in range(RECORDS)]
    path.write_text("".join(json.dumps(record) + "\n" for record in [*records, {"id": "bad", "prompt": 1}]))
    return path


@pytest.fixture(scope="module")
def alone(model: str, source: Path) -> dict[Any, Any]:
    """What one process writes."""
    return outcomes(hsd("generate", "-q", "-t", model, *SAMPLED, "-i", source).out)


def outcomes(lines: str) -> dict[Any, Any]:
    """Texts and errors by id. Each id is there once."""
    found = [json.loads(line) for line in lines.splitlines()]
    counts = Counter(each["id"] for each in found)
    assert max(counts.values()) == 1, counts
    return {each["id"]: each.get("text", each.get("error")) for each in found}


def wait_for(lines: int, output: Path, still_running: Callable[[], bool]) -> None:
    deadline = monotonic() + LIMIT
    while not output.exists() or output.read_bytes().count(b"\n") < lines:
        assert still_running(), "it ended too early"
        assert monotonic() < deadline
        sleep(0.01)


def kill_a_worker() -> None:
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0].startswith("ray::MapWorker"):
            process.send_signal(signal.SIGKILL)
            return
    raise AssertionError("there is no worker")


@thorough
def test_driver_worker_and_node_are_killed_and_every_record_comes_out_once_as_from_one_process(
    nodes: Nodes, model: str, source: Path, alone: dict[Any, Any], tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    arguments = ["-t", model, *SAMPLED, "-i", str(source), "-o", str(output), "--ray", nodes.address]
    with started_hsd("generate", *arguments) as running:
        wait_for(2, output, lambda: running.poll() is None)
        running.kill()
    kept = output.read_bytes().count(b"\n") - 1  # one is an error, which is tried again
    with started_hsd("generate", *arguments) as running:
        wait_for(kept + 2, output, lambda: running.poll() is None)
        kill_a_worker()
        nodes.lose_one()
        assert output.read_bytes().count(b"\n") < RECORDS
        out, err = running.communicate(timeout=LIMIT)
    assert outcomes(output.read_text()) == alone
    first, sums, failed = err.decode().splitlines()  # and nothing of Ray's
    assert first == f"hsd: 3 workers on the cluster at {nodes.address}, each with 1 CPU and a pair of its own"
    assert sums.startswith(
        f"hsd: {RECORDS - kept} texts · {kept} were done before · {120 * (RECORDS - kept)} tokens in "
    )
    assert failed.startswith(f"hsd: 1 of {RECORDS + 1} records failed; the first, in line {RECORDS + 1}: prompt must ")
    assert (running.returncode, out) == (1, b"")


def test_records_and_results_in_parquet_and_behind_urls_several_at_a_time(
    nodes: Nodes, model: str, source: Path, alone: dict[Any, Any], tmp_path: Path
) -> None:
    from pyarrow import Table
    from pyarrow.parquet import write_table

    few = source.read_text().splitlines()[:4]
    write_table(Table.from_pylist([json.loads(line) for line in few]), tmp_path / "in.parquet")
    arguments = ["-q", "-t", model, *SAMPLED, "--batch-size", "2", "--ray", nodes.address]
    arguments += ["-i", f"file://{tmp_path / 'in.parquet'}", "-o"]
    assert hsd("generate", *arguments, "memory://results/out.parquet") == (0, "", "")
    with opened("memory://results/out.parquet") as results:
        written = b"\n".join(results.lines()).decode()
    assert outcomes(written) == {f"r{number}": alone[f"r{number}"] for number in range(4)}


@thorough
def test_a_pair_that_a_worker_cannot_load_is_one_line(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    missing = str(tmp_path / "missing")
    done = hsd("generate", "-q", "-t", missing, "-i", tmp_path / "in.jsonl", "--ray", nodes.address)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("hsd: the worker on 1")
    assert "cannot load the pair: " in done.err
    assert done.err.count("\n") == 1


@thorough
def test_a_record_that_every_worker_dies_of_fails_alone(nodes: Nodes, model: str) -> None:
    from hsd_cli.cluster.texts import write_texts_on

    class Deadly(BatchEngine):
        def begin(self, request: Request) -> Text:
            if request.prompt == "k":
                os.kill(os.getpid(), signal.SIGKILL)
            return super().begin(request)

    def load(_: float) -> BatchEngine:
        return Deadly(Engine(load_model(model, "cpu"), None), 1)

    records = [Record(line, line, Request(prompt), "") for line, prompt in enumerate("akb", 1)]
    join(nodes.address)
    try:
        found = list(write_texts_on(Workers(1, 1, 0), load, 1, records, (), None))
    finally:
        ray.shutdown()
    told = {outcome.line: isinstance(outcome, Failure) and outcome.error for outcome in found}
    assert told == {1: False, 2: "3 workers died while they wrote it", 3: False}


@thorough
def test_a_worker_has_as_much_of_its_node_as_it_has_of_the_processors(nodes: Nodes) -> None:
    from hsd_cli.cluster.worker import share_of_node

    join(nodes.address)
    try:
        assert ray.get(ray.remote(num_cpus=0.5)(share_of_node).remote()) == 0.5
    finally:
        ray.shutdown()


# What needs no cluster


def test_what_comes_twice_is_dropped_and_what_does_not_come_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from hsd_cli.cluster import texts

    records = [Record(line, line, Request("a"), "") for line in (1, 2, 3)]
    first, second = Failure(1, 1, "why"), Failure(2, 2, "why")
    monkeypatch.setattr(texts, "_written", lambda *_: None)
    monkeypatch.setattr(texts, "_outcomes", lambda _: iter([first, second, first]))
    found = texts.write_texts_on(Workers(1, 1, 0), pytest.fail, 1, records, (), None)
    assert [next(found), next(found)] == [first, second]
    with pytest.raises(HsdError, match="1 records did not come back"):
        next(found)


@pytest.mark.parametrize(
    ("rooms", "cpus", "on_gpus", "expected"),
    [
        ([{"CPU": 8}, {"CPU": 4}], None, True, Workers(3, 4, 0)),
        ([{"CPU": 8}, {"CPU": 4}], 1, True, Workers(12, 1, 0)),
        ([{"CPU": 8}, {"CPU": 4}], 5, True, Workers(1, 5, 0)),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 4, "GPU": 1}, {"CPU": 2}], None, True, Workers(3, 1, 1)),
        ([{"CPU": 8, "GPU": 2}], 2, True, Workers(2, 2, 1)),
        ([{"CPU": 8, "GPU": 2}], 2, False, Workers(4, 2, 0)),
        ([{"CPU": 8}, {"memory": 1}], None, True, Workers(1, 8, 0)),
    ],
    ids=str,
)
def test_there_is_a_worker_for_each_gpu_or_else_for_each_share_of_the_cpus(
    rooms: list[dict[str, int]], cpus: int | None, on_gpus: bool, expected: Workers
) -> None:
    gone = {"Resources": {"CPU": 64, "GPU": 8}, "Alive": False}
    assert workers([gone, *({"Resources": room, "Alive": True} for room in rooms)], cpus, on_gpus) == expected


@pytest.mark.parametrize(("room", "cpus"), [({"CPU": 2}, 4), ({"memory": 1}, None)])
def test_a_cluster_without_room_for_a_worker_is_refused(room: dict[str, int], cpus: int | None) -> None:
    with pytest.raises(HsdError, match="--worker-cpus"):
        workers([{"Resources": room, "Alive": True}], cpus, on_gpus=True)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--ray"], 2, "--ray is about many records; name them with --input"),
        (["--ray", "--seed", "1"], 2, "--ray is about many records; name them with --input"),
        (["-i", "IN", "--worker-cpus", "2"], 2, "--worker-cpus is about the workers of --ray"),
        (["-i", "IN", "--ray", "--device", "cuda:1"], 2, "workers are given their GPUs; --device cuda is enough"),
        (["-i", "IN", "--ray", "ray://head:10001"], 2, "as HOST:PORT, not 'ray://head:10001'"),
        (["-i", "IN", "--ray=127.0.0.1:1"], 1, "no Ray cluster answers at 127.0.0.1:1: "),
        (["-i", "IN", "--ray", "127.0.0.1:1"], 1, "no Ray cluster answers at 127.0.0.1:1: "),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_at_once(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    done = hsd("generate", *(str(tmp_path / "in.jsonl") if word == "IN" else word for word in arguments))
    assert (done.code, done.out) == (code, "")
    assert sentence in done.err
    assert done.err.count("\n") == 1
