"""The models in the hub's cache, and their deletion from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hsd_cli.errors import HsdError
from hsd_cli.models.roles import roles
from hsd_cli.models.snapshots import State, main_snapshot, state_of

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo


@dataclass(frozen=True)
class CachedModel:
    """``size`` in bytes of all revisions, ``last_used`` in seconds since 1970; ``role`` is the one last played."""

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
    models = (_model(found, known) for found in repositories if found.repo_type == "model")
    return sorted((model for model in models if model.size), key=lambda model: model.name.lower())


def delete_models(models: Sequence[CachedModel]) -> None:
    """With all their revisions. Raises ``HsdError`` if something remains."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = scan_cache_dir(HF_HUB_CACHE)
    names = {model.name for model in models}
    for found in cache.repos:
        if found.repo_type != "model" or found.repo_id not in names:
            continue
        # Copies of a repository share commits, so that the library gets to see this one only.
        alone = replace(cache, repos=frozenset([found]))
        alone.delete_revisions(*(revision.commit_hash for revision in found.revisions)).execute()
        if found.repo_path.exists():  # the library only logs what it could not delete
            raise HsdError(f"could not delete all of {str(found.repo_path)!r}; check its permissions")


def _model(found: CachedRepoInfo, known_roles: dict[str, str]) -> CachedModel:
    partial = sum(path.stat().st_size for path in found.repo_path.glob("blobs/*.incomplete"))
    return CachedModel(
        name=found.repo_id,
        size=found.size_on_disk + partial,
        last_used=found.last_accessed,
        role=known_roles.get(found.repo_id),
        state=_state(found, bool(partial)),
    )


def _state(found: CachedRepoInfo, broken_off: bool) -> State:
    """Of the snapshot that commands use, or of the newest one where there is no such."""
    newest_first = sorted(found.revisions, key=lambda revision: -revision.last_modified)
    folder = main_snapshot(found.repo_id) or next((revision.snapshot_path for revision in newest_first), None)
    state = "no model" if folder is None else state_of(folder)
    return "partly downloaded" if broken_off and state != "whole" else state
