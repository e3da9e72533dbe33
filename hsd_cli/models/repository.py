"""What the hub says of one commit of a model: its files with their sizes and hashes."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from hsd_cli.errors import HsdError
from hsd_cli.models.failures import hub_address
from hsd_cli.models.hub_file import is_gguf_name, stays_inside
from hsd_cli.models.snapshots import repository_folder


@dataclass(frozen=True)
class RemoteFile:
    """``size`` in bytes. ``digest`` names the content: SHA-256 of large files, git's SHA-1 of small ones."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Repository:
    """``revision`` is the branch, tag or commit that was asked for, ``commit`` what it stands for today."""

    name: str
    revision: str
    commit: str
    files: dict[str, RemoteFile]

    @classmethod
    def read(cls, name: str, revision: str) -> Repository:
        """Asks the hub. Raises ``HsdError`` for an impossible token or answer, and what the hub's library raises."""
        from huggingface_hub import HfApi, get_token

        token = get_token() or ""
        if not (token.isascii() and token.isprintable()):  # the error about it would quote it
            raise HsdError("your hub token has characters that no token has; run: hf auth login (or unset HF_TOKEN)")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # the hub sends advice as warnings
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=10)
        files = {}
        for sibling in info.siblings or []:
            digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
            file = sibling.rfilename
            in_place = "/" not in file or (is_gguf_name(file) and stays_inside(file))
            if sibling.size is not None and _is_hash(digest) and in_place:
                files[file] = RemoteFile(file, sibling.size, digest)
        if not _is_hash(info.sha):
            raise HsdError(f"{hub_address()} does not answer as a hub does for {name!r}; check HF_ENDPOINT")
        return cls(name, revision, info.sha, files)

    @property
    def snapshot(self) -> Path:
        """The folder of this commit in the cache, there or not."""
        return repository_folder(self.name) / "snapshots" / self.commit

    @property
    def reference(self) -> Path:
        """The file that says which commit the revision stands for."""
        return repository_folder(self.name) / "refs" / self.revision

    def blob(self, file: RemoteFile) -> Path:
        """Where the cache keeps the content, under its hash."""
        return repository_folder(self.name) / "blobs" / file.digest

    def partial(self, file: RemoteFile) -> Path:
        """What has arrived of the content so far."""
        return self.blob(file).with_name(f"{file.digest}.incomplete")

    def has(self, file: RemoteFile) -> bool:
        """Whether all of it is here."""
        return any(
            path.is_file() and path.stat().st_size == file.size for path in (self.blob(file), self.snapshot / file.name)
        )

    def bytes_here(self, file: RemoteFile) -> int:
        if self.has(file):
            return file.size
        partial = self.partial(file)
        return min(partial.stat().st_size, file.size) if partial.is_file() else 0


def _is_hash(text: str | None) -> TypeGuard[str]:
    """Hashes become names of files, and the answer comes from elsewhere."""
    return text is not None and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", text) is not None
