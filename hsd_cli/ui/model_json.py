"""Models of the cache for machines. Sizes are in bytes, times in UTC."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hsd_cli.models.listing import CachedModel
from hsd_cli.models.pull import Pull


def pulled_json(pulls: Sequence[Pull], missing: Sequence[int]) -> str:
    return _json(
        models=[
            {
                "id": pull.name,
                "revision": pull.repository.commit,
                "folder": str(pull.repository.snapshot),
                "files": [file.name for file in pull.files],
                "bytes": pull.size,
                "downloaded_bytes": received,
            }
            for pull, received in zip(pulls, missing, strict=True)
        ]
    )


def listed_json(models: Sequence[CachedModel]) -> str:
    return _json(
        models=[
            {
                "id": model.name,
                "bytes": model.size,
                "last_used": datetime.fromtimestamp(model.last_used, UTC).isoformat(timespec="seconds"),
                "role": model.role,
                "state": model.state,
            }
            for model in models
        ]
    )


def deleted_json(models: Sequence[CachedModel], dry_run: bool) -> str:
    return _json(
        models=[{"id": model.name, "bytes": model.size} for model in models],
        bytes=sum(model.size for model in models),
        dry_run=dry_run,
    )


def _json(**entries: Any) -> str:
    return json.dumps(entries, indent=2)
