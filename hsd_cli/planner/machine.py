"""How much memory this machine's devices have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from hsd_cli.runtime.device import available_devices

# What a container may use of the machine, in both versions of Linux' control groups.
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_by_device() -> dict[str, int]:
    """Bytes by device name: free on a GPU, recommended by Metal, all of the RAM. The fastest kind comes first."""
    return {name: size for name in available_devices() if (size := _memory(name)) is not None}


def _memory(device: str) -> int | None:
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    if device == "mps":
        return torch.mps.recommended_max_memory()
    return min(_ram(), default=None)


def _ram() -> Iterator[int]:
    if hasattr(os, "sysconf"):  # not on Windows
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # none, or "max"
            yield int(Path(limit).read_text())
