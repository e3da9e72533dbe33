"""A worker: it has a pair, and writes the records that it is handed, a few at a time."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from numpy import ndarray
from ray.util import get_node_ip_address

from hsd_cli.batch.records import Failure, Record
from hsd_cli.batch.results import Result, write_texts
from hsd_cli.batch_engine import BatchEngine
from hsd_cli.errors import HsdError

TRIES = 3  # as often a record may be begun, for each worker that dies of it has the next one try


@dataclass(frozen=True)
class Collapse:
    """Why a worker cannot go on, nor others in its place."""

    reason: str


class Tries:
    """Counts how often records were begun, wherever: an actor."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, line: int) -> int:
        self._begun[line] += 1
        return self._begun[line]


class Worker:
    """Written for Ray Data, which makes one for each place and another where one has died.

    ``load`` has the pair come into memory, of which this worker has a share. ``tries`` is a handle of ``Tries``.
    """

    def __init__(self, load: Callable[[float], BatchEngine], run_seed: int | None, tries: Any) -> None:
        self._run_seed = run_seed
        self._tries = tries
        self._engine: BatchEngine | Collapse
        try:
            self._engine = load(share_of_node())
        except Exception as error:
            self._engine = _collapse("cannot load the pair", error)

    def __call__(self, block: Mapping[str, ndarray]) -> dict[str, list[bytes]]:
        """A row of ``outcomes`` for the row of ``records``, both pickled; a ``Collapse`` if there are none."""
        return {"outcomes": [pickle.dumps(self._write(pickle.loads(block["records"][0])))]}

    def _write(self, records: Sequence[Record]) -> list[Result | Failure] | Collapse:
        if isinstance(self._engine, Collapse):
            return self._engine
        try:
            return list(write_texts(self._begun(records), (), self._engine, self._run_seed, watch=lambda commit: None))
        except Exception as error:
            return _collapse("failed", error)

    def _begun(self, records: Iterable[Record]) -> Iterator[Record | Failure]:
        for record in records:
            if ray.get(self._tries.begin.remote(record.line)) <= TRIES:
                yield record
            else:
                yield Failure(record.id, record.line, f"{TRIES} workers died while they wrote it")


def share_of_node() -> float:
    """What this worker has of its node's processors, and so may take of its memory."""
    here = ray.get_runtime_context()
    whole = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here.get_node_id())
    return float(here.get_assigned_resources().get("CPU", 0) / whole["CPU"])


def _collapse(what: str, error: Exception) -> Collapse:
    reason = str(error) if isinstance(error, HsdError) else f"{type(error).__name__}: {error}"
    return Collapse(f"the worker on {get_node_ip_address()} {what}: {reason}")
