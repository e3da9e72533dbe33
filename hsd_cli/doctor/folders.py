"""Where files are kept: what is there, whether more can be written, and what room is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from hsd_cli.doctor.check import Check, Finding
from hsd_cli.storage import cache_folder
from hsd_cli.ui.plan_figures import size

LITTLE = 10 * 10**9  # bytes: a model of five billion weights


def folders() -> Iterator[Check]:
    from huggingface_hub.constants import HF_HUB_CACHE

    hub = Path(HF_HUB_CACHE)
    yield Check("hub cache", partial(_folder, hub, "make it writable, or set HF_HOME to another folder"))
    yield Check("hsd cache", partial(_folder, cache_folder(), "make it writable, or set HSD_CACHE to another folder"))
    yield Check("disk", partial(_disk, hub))


def _folder(path: Path, remedy: str) -> Finding:
    nearest = _nearest(path)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return Finding("broken", f"{path}: nothing can be written", remedy)
    return Finding("ok", f"{path}: {size(_bytes(path)) if path.exists() else 'not there yet'}")


def _disk(path: Path) -> Finding:
    nearest = _nearest(path)
    usage = shutil.disk_usage(nearest)
    text = f"{size(usage.free)} of {size(usage.total)} free at {nearest}"
    if usage.free < LITTLE:
        return Finding("warning", text, "see what models take with `hsd list`, and delete some with `hsd rm ID`")
    return Finding("ok", text)


def _nearest(path: Path) -> Path:
    """The folder itself, or the one in which it would be made."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone in the meantime
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
