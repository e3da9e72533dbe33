"""Where `hsd` keeps what it has worked out: small files that may be deleted, damaged or missing at any time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """``HSD_CACHE``, or the platform's place for such files."""
    chosen = os.environ.get("HSD_CACHE")
    return Path(chosen) if chosen else user_cache_path("hsd", appauthor=False)


def write_atomically(path: Path, data: bytes) -> None:
    """All of ``data`` or nothing, for readers and for two writers at once. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
