"""The drafters that need no download."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

EMBEDDED_DRAFTERS = ("embedded:drafter", "embedded:twin")
WEIGHTS = (".safetensors", ".bin")


def local_drafters(target: str) -> list[str]:
    """Every downloaded causal language model and the embedded drafters, but not the target itself."""
    return [name for name in (*_downloaded(), *EMBEDDED_DRAFTERS) if name != target]


def _downloaded() -> Iterator[str]:
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda repository: repository.repo_id):
        snapshots = [revision.snapshot_path for revision in repository.revisions]
        if repository.repo_type == "model" and any(map(_is_causal, snapshots)):
            yield repository.repo_id


def _is_causal(snapshot: Path) -> bool:
    """Whether there are weights, and they are those of the class that generates text with this kind of model."""
    if not any(path.suffix in WEIGHTS for path in snapshot.iterdir()):
        return False
    try:
        config = json.loads((snapshot / "config.json").read_bytes())
        return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config["model_type"]) in config["architectures"]
    except (OSError, ValueError, KeyError, TypeError):  # no model of transformers
        return False
