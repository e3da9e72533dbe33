"""From records to results over a cluster.

This process alone reads records and keeps results: workers send theirs back, and what a worker had when it died comes
from another one. So there is nothing to commit on the nodes, nothing to merge, and a resumed run needs no cluster to
know what is done.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, from_items

from hsd_cli.batch.records import Failure, Record, RecordId
from hsd_cli.batch.results import Result
from hsd_cli.batch_engine import BatchEngine
from hsd_cli.cluster.joining import Workers
from hsd_cli.cluster.worker import Collapse, Tries, Worker
from hsd_cli.errors import HsdError

IN_A_BLOCK = 4  # records for each seat, that a worker is handed at a time, and that are written again if it dies
BLOCKS = 2  # for each worker at least, where there are few records
MOST_BLOCKS = 20_000  # each costs this process some milliseconds, and 13 kB


def write_texts_on(
    workers: Workers,
    load: Callable[[float], BatchEngine],
    seats: int,
    records: Iterable[Record | Failure],
    finished: Container[RecordId],
    run_seed: int | None,
) -> Iterator[Result | Failure]:
    """A result for each record that is not ``finished``, as they come: failures of reading first.

    ``seats`` is about how many texts a worker writes at a time.
    Raises ``HsdError`` where a worker cannot load its pair, or the cluster fails.
    """
    waiting: list[Record] = []
    for record in records:
        if isinstance(record, Failure):
            yield record
        elif record.id not in finished:
            waiting.append(record)
    if not waiting:
        return
    lines = {record.line for record in waiting}
    with _failures_of_ray():
        written = _written(_blocks(waiting, workers.number, seats), workers, load, run_seed)
        waiting.clear()  # they are in the cluster's memory
        for outcome in _outcomes(written):
            if outcome.line in lines:  # else it was written twice
                lines.remove(outcome.line)
                yield outcome
    if lines:
        raise HsdError(f"{len(lines)} records did not come back from the cluster; the same command writes them")


def _blocks(records: Sequence[Record], workers: int, seats: int) -> list[dict[str, bytes]]:
    size = min(IN_A_BLOCK * seats, len(records) // (BLOCKS * workers))
    size = max(size, ceil(len(records) / MOST_BLOCKS))
    return [{"records": pickle.dumps(records[at : at + size])} for at in range(0, len(records), size)]


def _written(
    blocks: list[dict[str, bytes]], workers: Workers, load: Callable[[float], BatchEngine], run_seed: int | None
) -> Dataset:
    DataContext.get_current().enable_progress_bars = False
    tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tries).remote()
    return from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        Worker,
        fn_constructor_args=(load, run_seed, tries),
        batch_size=1,  # a task for each block; a worker has one in work and one in waiting
        # No least number: workers whose nodes went away must not keep those that are left from ending.
        compute=ActorPoolStrategy(min_size=1, initial_size=min(workers.number, len(blocks))),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
    )


def _outcomes(written: Dataset) -> Iterator[Result | Failure]:
    """As Ray Data brings them: at least once, while workers come and go."""
    for block in written.iter_batches(batch_size=None, prefetch_batches=0):
        for outcomes in map(pickle.loads, block["outcomes"]):
            if isinstance(outcomes, Collapse):
                raise HsdError(outcomes.reason)
            yield from outcomes


@contextmanager
def _failures_of_ray() -> Iterator[None]:
    """One line of what Ray has pages about."""
    try:
        yield
    except HsdError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise HsdError(f"the cluster failed: {lines[-1] if lines else type(error).__name__}") from error
