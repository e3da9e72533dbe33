"""Joining a Ray cluster, or starting one on this machine, without its talk; and how it is shared among workers."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hsd_cli.errors import HsdError, UsageError

SECONDS = 10.0  # for a cluster to answer
SURROUNDINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # whatever it is: it would go to standard output
    "RAY_NUM_REDIS_GET_RETRIES": "2",  # by default a cluster that is gone is waited for for a quarter of an hour
}


class Workers(NamedTuple):
    """How many there is room for, and what each takes."""

    number: int
    cpus: int
    gpus: int


def join(address: str | None) -> None:
    """As ``ray.init``: ``address`` is a cluster's; without one that of `RAY_ADDRESS`, or of one that runs here.

    If there is none, one is started here, which ends with this process. Raises ``HsdError``.
    """
    os.environ.update(SURROUNDINGS)
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address not in (None, "auto", "local"):
        _refuse_unreachable(address)
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError("--ray needs Ray; run: pip install 'hsd-cli[ray]'") from None
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # the others write Ray's files
            handler.setLevel(logging.CRITICAL)
    told_to_end = signal.getsignal(signal.SIGTERM)
    try:
        with _silence():
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, RuntimeError, ValueError) as error:
        raise HsdError(f"cannot join a Ray cluster: {' '.join(str(error).split())}") from error
    finally:
        signal.signal(signal.SIGTERM, told_to_end)  # Ray has a handler of its own, and an exit code


def workers(nodes: Sequence[Mapping[str, Any]], cpus: int | None, on_gpus: bool) -> Workers:
    """One for each GPU of the ``nodes``, as ``ray.nodes`` has them; without GPUs one for each ``cpus`` CPUs.

    Where that is not given, it is as many as the smallest node has. Raises ``HsdError`` if there is no room for any.
    """
    rooms = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(int(room.get("GPU", 0)) for room in rooms)
    if on_gpus and gpus:
        return Workers(gpus, cpus or 1, 1)
    found = [int(room.get("CPU", 0)) for room in rooms if room.get("CPU", 0) >= 1]
    each = cpus or min(found, default=0)
    number = sum(count // each for count in found) if each else 0
    if not number:
        raise HsdError(f"no node of the cluster has {each or 'a'} CPUs; its nodes have {found}; see --worker-cpus")
    return Workers(number, each, 0)


def _refuse_unreachable(address: str) -> None:
    if not (parts := re.fullmatch(r"\[?(?P<host>[^/]+?)\]?:(?P<port>\d+)", address)):
        raise UsageError(f"--ray takes the address of a cluster's head as HOST:PORT, not {address!r}")
    try:
        socket.create_connection((parts["host"], int(parts["port"])), SECONDS).close()
    except (OSError, OverflowError) as error:
        raise HsdError(f"no Ray cluster answers at {address}: {error}") from error


@contextmanager
def _silence() -> Iterator[None]:
    """What Ray's libraries write to standard error while they start is news to nobody."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
