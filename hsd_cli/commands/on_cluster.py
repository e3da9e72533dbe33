"""``hsd generate -i --ray``: the texts of a batch, written by the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import TYPE_CHECKING

from hsd_cli.commands.interrupts import leaving_at_once
from hsd_cli.commands.models import say
from hsd_cli.errors import UsageError

if TYPE_CHECKING:
    from hsd_cli.batch.records import Failure, Record, RecordId
    from hsd_cli.batch.results import Result
    from hsd_cli.batch_engine import BatchEngine
    from hsd_cli.commands.many_texts import Writer
    from hsd_cli.ui.batch_progress import BatchProgress

SOME = 8  # texts at a time, where each worker finds out how many


def on_cluster(
    load: Callable[[float], BatchEngine], size: int | None, address: str, cpus: int | None, device: str, quiet: bool
) -> Callable[[], Writer]:
    """Starts workers on the cluster at ``address``, which is as in ``join``; each has the pair from ``load``.

    ``size`` is how many texts a pair writes at a time, if that is known. Raises ``UsageError`` for a ``device`` that a
    worker is not to choose.
    """
    if ":" in device:
        raise UsageError(f"workers are given their GPUs; --device {device.partition(':')[0]} is enough")

    def start() -> Writer:
        with leaving_at_once():
            from hsd_cli.cluster.joining import join, workers

            join(address)
            import ray

            from hsd_cli.cluster.texts import write_texts_on

            nodes = ray.nodes()
            room = workers(nodes, cpus, on_gpus=device != "cpu")
        if not quiet:
            each = "a GPU" if room.gpus else f"{room.cpus} CPU" + ("s" if room.cpus > 1 else "")
            where = ray.get_runtime_context().gcs_address
            count = f"{room.number} worker{'s' if room.number > 1 else ''}"
            say(f"{count} on the cluster at {where}, each with {each} and a pair of its own")

        def write(
            records: Iterable[Record | Failure],
            finished: Container[RecordId],
            run_seed: int | None,
            progress: BatchProgress,
            ready: Callable[[], bool],
        ) -> Iterator[Result | Failure]:
            from hsd_cli.batch.results import Result

            try:
                for outcome in write_texts_on(room, load, size or SOME, records, finished, run_seed):
                    if isinstance(outcome, Result):
                        progress.add(outcome.tokens, outcome.drafted, outcome.accepted)
                    yield outcome
            finally:
                ray.shutdown()

        return write

    return start
