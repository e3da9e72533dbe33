"""How much memory this machine's devices have."""

from __future__ import annotations

import os

import torch

from hsd_cli.runtime.device import available_devices


def memory_by_device() -> dict[str, int]:
    """Bytes by device name: what is free on a GPU, what Metal recommends, and all of the RAM. The fastest kind first."""
    return {name: size for name in available_devices() if (size := _memory(name)) is not None}


def _memory(device: str) -> int | None:
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    if device == "mps":
        return torch.mps.recommended_max_memory()
    if not hasattr(os, "sysconf"):  # Windows
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
