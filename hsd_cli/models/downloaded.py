"""Which models' files are on this machine, and where."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hsd_cli.models.gguf import model_folder
from hsd_cli.models.gguf_header import is_gguf
from hsd_cli.models.hub_file import downloaded_file, hub_name
from hsd_cli.models.locate import embedded_folder
from hsd_cli.models.snapshots import PREFIX, main_snapshot


def downloaded_models() -> list[str]:
    """The ids in the hub's cache, whatever state their files are in, and the names of the GGUF files there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    with suppress(OSError):  # no cache, or one that cannot be read
        folders = sorted(path.name for path in Path(HF_HUB_CACHE).iterdir() if path.name.startswith(PREFIX))
        return [name for folder in folders for name in _names_in(Path(HF_HUB_CACHE) / folder)]
    return []


def files_of(name: str) -> list[Path]:
    """The files of an embedded model, a folder, or the snapshot that was downloaded last; none if there are none.

    Raises ``HsdError`` for a GGUF file that is damaged, or that transformers cannot read.
    """
    folder = embedded_folder(name) or Path(name).expanduser()
    if not folder.exists():
        folder = downloaded_file(name) or folder
    if is_gguf(folder):
        folder = model_folder(folder)
    if not folder.is_dir():
        downloaded = main_snapshot(name)
        if downloaded is None:
            return []
        folder = downloaded
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_file())
    return []


def _names_in(folder: Path) -> list[str]:
    """Of a repository; its id, too, unless it has GGUF files alone."""
    repository = folder.name.removeprefix(PREFIX).replace("--", "/")
    files = [path for path in folder.glob("snapshots/*/**/*") if path.is_file()]
    names = {hub_name(repository, "/".join(path.relative_to(folder).parts[2:])) for path in files}
    return sorted(names or {repository})
