"""Which device and which number format a model runs in."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.errors import OutOfMemoryError, UsageError

GIB = 1 << 30
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is the first of CUDA, MPS and CPU that this machine has."""
    found = available_devices()
    if name == "auto":
        return torch.device(found[0])
    if name not in found and f"{name}:0" not in found:
        raise UsageError(f"no device {name!r} on this machine; use one of: {', '.join(found)}")
    return torch.device(name)


def available_devices() -> list[str]:
    """Every device of this machine by its name, the fastest kind first."""
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is half precision on an accelerator (weights are read half as often) and float32 on a CPU."""
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.float16 if device.type == "mps" else torch.float32
    if name not in DTYPES:
        raise UsageError(f"unknown dtype {name!r}; use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def device_kind(device: torch.device) -> str:
    """Devices of one kind are equally fast."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def out_of_memory(device: torch.device) -> OutOfMemoryError:
    """The one sentence on it, with the figures that the device tells."""
    figures = ""
    if device.type == "cuda":
        free, size = torch.cuda.mem_get_info(device)
        ours = torch.cuda.memory_allocated(device)
        figures = f" ({device}: {free / GIB:.1f} of {size / GIB:.1f} GiB free, {ours / GIB:.1f} taken by these models)"
    instead = "a smaller model" if device.type == "cpu" else "--device cpu"
    return OutOfMemoryError(
        f"the device ran out of memory{figures}; try a shorter text, --dtype bfloat16, --quant int8 or {instead}"
    )


def upload(ids: Sequence[int], device: torch.device) -> torch.Tensor:
    """``ids`` (int64) on the device, behind the work that it was given before: nothing waits for that."""
    here = torch.tensor(ids, dtype=torch.int64)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)
