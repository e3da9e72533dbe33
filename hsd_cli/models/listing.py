"""The models in the hub's cache, and their deletion from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hsd_cli.errors import HsdError
from hsd_cli.models.hub_file import hub_name
from hsd_cli.models.roles import roles
from hsd_cli.models.snapshots import State, main_snapshot, state_of

if TYPE_CHECKING:
    from huggingface_hub import CachedFileInfo, CachedRepoInfo


@dataclass(frozen=True)
class CachedModel:
    """A repository, or a GGUF file of one: then the repository is what is left of it. ``size`` in bytes of all
    revisions, ``last_used`` in seconds since 1970; ``role`` is the one last played."""

    name: str
    size: int
    last_used: float
    role: str | None
    state: State


def cached_models() -> list[CachedModel]:
    """By name. What is empty, or the library cannot make sense of, is left out."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    known = roles()
    models = (model for found in repositories if found.repo_type == "model" for model in _models(found, known))
    return sorted((model for model in models if model.size), key=lambda model: model.name.lower())


def delete_models(models: Sequence[CachedModel]) -> None:
    """With all their revisions. Raises ``HsdError`` if something remains."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = scan_cache_dir(HF_HUB_CACHE)
    names = {model.name for model in models}
    for found in cache.repos:
        files = _files(found)
        if found.repo_type != "model" or names.isdisjoint(files):
            continue
        if not names.issuperset(files):
            _delete_part(found, names & files.keys())
            continue
        # Copies of a repository share commits, so that the library gets to see this one only.
        alone = replace(cache, repos=frozenset([found]))
        alone.delete_revisions(*(revision.commit_hash for revision in found.revisions)).execute()
        if found.repo_path.exists():  # the library only logs what it could not delete
            raise _undeletable(found)


def _models(found: CachedRepoInfo, known_roles: dict[str, str]) -> Iterator[CachedModel]:
    partial = sum(path.stat().st_size for path in _partial(found))
    for name, files in _files(found).items():
        blobs = {file.blob_path: file for file in files}.values()
        is_repository = name == found.repo_id
        yield CachedModel(
            name=name,
            size=sum(file.size_on_disk for file in blobs) + (partial if is_repository else 0),
            last_used=max((file.blob_last_accessed for file in blobs), default=found.last_accessed),
            role=known_roles.get(name),
            state=_state(found, bool(partial)) if is_repository else _state_of_file(found, name),
        )


def _files(found: CachedRepoInfo) -> dict[str, list[CachedFileInfo]]:
    """Those of all revisions, by the name of the model that they belong to. What broke off is the repository's: the
    cache does not tell which file it is of."""
    files: dict[str, list[CachedFileInfo]] = {found.repo_id: []} if any(_partial(found)) else {}
    for revision in found.revisions:
        for file in revision.files:
            path = file.file_path.relative_to(revision.snapshot_path).as_posix()
            files.setdefault(hub_name(found.repo_id, path), []).append(file)
    return files


def _partial(found: CachedRepoInfo) -> Iterator[Path]:
    return found.repo_path.glob("blobs/*.incomplete")


def _delete_part(found: CachedRepoInfo, names: Set[str]) -> None:
    """Leaves what other models of the repository need."""
    gone: list[Path] = []
    blobs: dict[bool, set[Path]] = {True: set(), False: set()}
    for name, files in _files(found).items():
        gone += [file.file_path for file in files if name in names]
        blobs[name in names].update(file.blob_path for file in files)
    gone += blobs[True] - blobs[False]
    if found.repo_id in names:
        gone += _partial(found)
    try:
        for path in gone:
            path.unlink(missing_ok=True)  # without links a file is its own blob
    except OSError as error:
        raise _undeletable(found) from error


def _undeletable(found: CachedRepoInfo) -> HsdError:
    return HsdError(f"could not delete all of {str(found.repo_path)!r}; check its permissions")


def _state_of_file(found: CachedRepoInfo, name: str) -> State:
    folder = main_snapshot(found.repo_id)
    return "whole" if folder is None or (folder / name.partition(":")[2]).is_file() else "partly downloaded"


def _state(found: CachedRepoInfo, broken_off: bool) -> State:
    """Of the snapshot that commands use, or of the newest one where there is no such."""
    newest_first = sorted(found.revisions, key=lambda revision: -revision.last_modified)
    folder = main_snapshot(found.repo_id) or next((revision.snapshot_path for revision in newest_first), None)
    state = "no model" if folder is None else state_of(folder)
    return "partly downloaded" if broken_off and state != "whole" else state
