"""What the hub says of one commit of a model: its files with their sizes and hashes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
        """Asks the hub. Raises what its library raises."""
        from huggingface_hub import HfApi

        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=10)
        files = {}
        for sibling in info.siblings or []:
            digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
            if digest is not None and sibling.size is not None and "/" not in sibling.rfilename:
                files[sibling.rfilename] = RemoteFile(sibling.rfilename, sibling.size, digest)
        assert info.sha is not None
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
