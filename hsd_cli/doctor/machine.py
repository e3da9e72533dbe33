"""Devices: what they hold, and in which number formats and with which kernels they compute."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from hsd_cli.doctor.check import Check, Finding
from hsd_cli.ui.plan_figures import size

if TYPE_CHECKING:
    import torch


def machine() -> Iterator[Check]:
    """Each device, the driver of those that are not usable, and the attention kernels."""
    from hsd_cli.runtime.device import available_devices

    devices = available_devices()
    for device in devices:
        yield Check(f"device {device}", partial(_device, device))
    if shutil.which("nvidia-smi") and not any(device.startswith("cuda") for device in devices):
        yield Check("NVIDIA driver", _unused_driver)
    yield Check("attention", _attention)


def _device(name: str) -> Finding:
    import torch

    from hsd_cli.planner.machine import memory_by_device
    from hsd_cli.runtime.device import DTYPES, resolve_dtype
    from hsd_cli.runtime.packing import has_order

    device = torch.device(name)
    works = [dtype for dtype in DTYPES if _multiplies(device, DTYPES[dtype])]
    memory = memory_by_device().get(name)
    model = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    room = "memory unknown" if memory is None else f"{size(memory)} {'free' if device.type == 'cuda' else 'of memory'}"
    if "float32" not in works:
        return Finding("broken", f"{model}{room}; it cannot multiply", "reinstall PyTorch: see pytorch.org/get-started")
    auto = str(resolve_dtype("auto", device)).removeprefix("torch.")
    if device.type == "cpu":
        room += f", up to {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    advice = ""
    if device.type == "cpu" and has_order(torch.bfloat16):  # auto keeps to exact texts there
        advice = "; --dtype bfloat16 takes half to two thirds of the time for models that are saved in it"
    return Finding("ok", f"{model}{room}; computes in {', '.join(works)} (auto is {auto}){advice}")


def _multiplies(device: torch.device, dtype: torch.dtype) -> bool:
    import torch

    try:
        ones = torch.ones(8, 8, device=device, dtype=dtype)
        return bool((ones @ ones == 8).all())
    except RuntimeError:  # how torch says that there is no such kernel
        return False


def _unused_driver() -> Finding:
    return Finding(
        "warning",
        "there is a driver, but this PyTorch does not use it",
        "install PyTorch for CUDA: see pytorch.org/get-started",
    )


def _attention() -> Finding:
    import torch
    from transformers.utils.import_utils import is_flash_attn_2_available, is_torch_flex_attn_available

    query = torch.ones(1, 1, 2, 8)
    torch.nn.functional.scaled_dot_product_attention(query, query, query)
    others = {"flash-attn": is_flash_attn_2_available(), "flex": is_torch_flex_attn_available()}
    there = [name for name, available in others.items() if available]
    absent = [f"no {name}" for name, available in others.items() if not available]
    return Finding("ok", ", ".join(["sdpa", *there, *absent]))
