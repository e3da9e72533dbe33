"""What a measurement was taken on."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import tokenizers
import torch
import transformers

from hsd_cli import __version__


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Processor, threads, versions and the date (UTC)."""
    gpu = {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda or ""} if _cuda(device) else {}
    return {
        "cpu": _processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        **gpu,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "hsd": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def process_memory() -> int | None:
    """The most bytes that this process ever held in RAM; ``None`` where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _cuda(device: torch.device) -> bool:
    return device.type == "cuda"


def _processor() -> str:
    with suppress(OSError):  # Linux alone
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
