"""A GGUF file in a repository on the hub, by the name that people type: ``owner/repo:folder/file.gguf``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from hsd_cli.errors import HsdError
from hsd_cli.models.snapshots import main_snapshot

HUB_ID = r"[^\W_][\w.-]*(/[\w.-]+)?"  # the library knows of more rules, and is not needed for most names
SUFFIX = ".gguf"
PART = r".*-\d{5}-of-(?!00001)\d{5}\.gguf"  # one of several files that make a model


class HubFile(NamedTuple):
    """``file`` is a path in the repository, which leads to no other place."""

    repository: str
    file: str


def hub_file(name: str) -> HubFile | None:
    """``None`` for names of other kinds.

    Raises ``HsdError`` for a path that leads out of the repository, and for one of several files that make a model.
    """
    repository, _, file = name.partition(":")
    if not (re.fullmatch(HUB_ID, repository) and is_gguf_name(file)):
        return None
    if not stays_inside(file):
        raise HsdError(
            f"{name!r} names no file of a repository; give its path there, as in owner/repo:folder/file.gguf"
        )
    if is_part(file):
        raise HsdError(
            f"{name!r} is one of several files; run: hf download {repository}, make one of them: llama-gguf-split "
            "--merge FIRST ALL, and give its path"
        )
    return HubFile(repository, file)


def hub_name(repository: str, file: str) -> str:
    """What people type for the model that the file belongs to."""
    return f"{repository}:{file}" if is_gguf_name(file) else repository


def downloaded_file(name: str) -> Path | None:
    """The file of the commit that commands use. ``None`` where it is not there, and for names of other kinds."""
    wanted = hub_file(name)
    snapshot = None if wanted is None else main_snapshot(wanted.repository)
    if wanted is None or snapshot is None:
        return None
    path = snapshot / wanted.file
    return path if path.is_file() else None


def is_gguf_name(file: str) -> bool:
    return file.lower().endswith(SUFFIX)


def is_part(file: str) -> bool:
    return re.fullmatch(PART, file, re.IGNORECASE) is not None


def stays_inside(file: str) -> bool:
    """Whether the path is one in a folder, on every system."""
    return "\\" not in file and file.isprintable() and all(part not in ("", ".", "..") for part in file.split("/"))
