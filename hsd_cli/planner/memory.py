"""Keeps what was measured of a pair for later runs: tied to both models' files, to how they compute, and where."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hsd_cli.models.content import content_hash
from hsd_cli.planner.record import PairRecord
from hsd_cli.runtime.device import device_kind
from hsd_cli.storage import cache_folder, write_atomically

VERSION = 1  # of what is measured and of how it is written down


@dataclass(frozen=True)
class Placement:
    """A model, by the name that it is loaded by, and where and how it computes."""

    name: str
    device: torch.device
    dtype: torch.dtype
    quantization: str | None = None


def remember(target: Placement, drafter: Placement, record: PairRecord) -> None:
    """Reads large files in full, once, for their hash. Raises ``OSError`` where nothing can be written."""
    key = _key(target, drafter, read=True)
    if key is not None:
        write_atomically(_path(key), json.dumps({"key": key, "record": asdict(record)}).encode())


def recall(target: Placement, drafter: Placement) -> PairRecord | None:
    """What was remembered of the pair, in no time; ``None`` if there is nothing, or nothing that can be trusted."""
    key = _key(target, drafter, read=False)
    if key is None:
        return None
    try:
        data = json.loads(_path(key).read_bytes())
        return PairRecord.from_json(data["record"]) if data["key"] == key else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):  # missing, damaged or foreign
        return None


def _key(target: Placement, drafter: Placement, read: bool) -> str | None:
    parts = [str(VERSION), platform.node()]
    for side in (target, drafter):
        content = content_hash(side.name, read)
        if content is None:
            return None
        parts.append(f"{content} {device_kind(side.device)} {side.dtype} {side.quantization or 'plain'}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _path(key: str) -> Path:
    return cache_folder() / "pairs" / f"{key}.json"
