"""The role that each model played when it last ran: a convenience for lists, so that losing it is no failure."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from hsd_cli.storage import alone_in, cache_folder, write_atomically


def roles() -> dict[str, str]:
    """``target`` or ``drafter`` by the model's name."""
    with suppress(OSError, ValueError, RecursionError):  # missing, damaged
        known = json.loads(_file().read_bytes())
        if isinstance(known, dict):
            return {name: role for name, role in known.items() if isinstance(role, str)}
    return {}


def remember_role(name: str, role: str) -> None:
    if roles().get(name) != role:
        with suppress(OSError), alone_in(cache_folder()):
            write_atomically(_file(), json.dumps(roles() | {name: role}).encode())


def _file() -> Path:
    return cache_folder() / "roles.json"
