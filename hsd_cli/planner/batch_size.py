"""How many texts to write at a time."""

from __future__ import annotations

from hsd_cli.planner.footprint import read_footprint
from hsd_cli.planner.machine import memory_by_device
from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.runtime.quantization import stored_bytes

MOST = 32  # passes take longer by as much as they read more from there on, at the latest
TYPICAL_TEXT = 2048  # tokens, prompt included
SHARE = 0.5  # of the memory that is left: passes need some, too


def texts_that_fit(target: LoadedModel, drafter: LoadedModel | None, share: float = 1.0) -> int:
    """As many as there is memory for on the devices of both models, at most ``MOST``; ``share``: how much of the
    machine's own memory is this process's."""
    memory = memory_by_device()
    needed: dict[str, int] = {}
    taken: dict[str, int] = {}
    for loaded in (target, drafter):
        if loaded is None:
            continue
        where = str(loaded.model.device)
        cache = read_footprint(loaded.name, loaded.trust_remote_code).cache(TYPICAL_TEXT)
        needed[where] = needed.get(where, 0) + cache * loaded.model.dtype.itemsize
        if not where.startswith("cuda") and where in memory:  # what is known there is not what is free
            taken[where] = taken.get(where, 0) + stored_bytes(loaded.model)
    free = {where: share * memory[where] - models for where, models in taken.items()}
    rooms = [SHARE * room / needed[where] for where, room in (memory | free).items() if where in needed]
    return max(1, min(MOST, int(min(rooms, default=1))))
