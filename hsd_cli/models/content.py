"""A hash of all that a model computes with: what is measured of the model is tied to it."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from hsd_cli.models.downloaded import files_of
from hsd_cli.storage import cache_folder, write_atomically

WEIGHTS = (".safetensors", ".bin", ".gguf")
DESCRIPTIONS = (".json", ".model", ".txt", ".tiktoken", ".jinja", ".py")  # configuration, tokenizer, code of its own
LARGE = 1 << 20  # bytes: smaller files are hashed faster than their hash is looked up
CHUNK = 1 << 20


def content_hash(name: str, read: bool) -> str | None:
    """``None`` if the weights are not on this machine, or if large files would have to be read and ``read`` is false.

    A large file is read once: its hash is known for as long as its path, size and time of change are the same.
    """
    files = [path for path in files_of(name) if path.suffix in WEIGHTS + DESCRIPTIONS]
    if not any(path.suffix in WEIGHTS for path in files):
        return None
    lines = []
    with suppress(OSError):  # a link to nowhere, no permission
        for path in files:
            found = _file_hash(path, read)
            if found is None:
                return None
            lines.append(f"{path.name} {found}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return None


def _file_hash(path: Path, read: bool) -> str | None:
    blob = path.resolve()
    if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return blob.name  # the hub's cache names files by their hash
    status = blob.stat()
    if status.st_size <= LARGE:
        return hashlib.sha256(blob.read_bytes()).hexdigest()
    state = f"{blob}\n{status.st_size}\n{status.st_mtime_ns}"
    note = cache_folder() / "hashes" / hashlib.sha256(state.encode(errors="surrogateescape")).hexdigest()
    with suppress(OSError, UnicodeDecodeError):
        known = note.read_text("ascii")
        if re.fullmatch("[0-9a-f]{64}", known):
            return known
    if not read:
        return None
    found = _read_hash(blob)
    with suppress(OSError):  # a full or read-only disk costs the time to read again, nothing else
        write_atomically(note, found.encode())
    return found


def _read_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
