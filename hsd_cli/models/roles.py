"""The role that each model played when it last ran: a convenience for lists, so that losing it is no failure."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from hsd_cli.storage import cache_folder, write_atomically


def roles() -> dict[str, str]:
    """``target`` or ``drafter`` by the model's name."""
    with suppress(OSError, ValueError):
        known = json.loads(_file().read_bytes())
        if isinstance(known, dict):
            return {name: role for name, role in known.items() if isinstance(role, str)}
    return {}


def remember_role(name: str, role: str) -> None:
    known = roles()
    if known.get(name) != role:
        with suppress(OSError):
            write_atomically(_file(), json.dumps(known | {name: role}).encode())


def _file() -> Path:
    return cache_folder() / "roles.json"
