"""Which files of a repository a run needs, and their way into the hub's cache."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from hsd_cli.errors import HsdError
from hsd_cli.models.adapter import ADAPTER_CONFIG, merging
from hsd_cli.models.failures import explain_failure
from hsd_cli.models.fetch import fetch
from hsd_cli.models.hub_file import HubFile, hub_file, is_gguf_name, is_part
from hsd_cli.models.repository import RemoteFile, Repository
from hsd_cli.models.snapshots import (
    CODE,
    CONVERTIBLE,
    INDEX,
    MAIN,
    PICKLES,
    SAFETENSORS,
    TOKENIZERS,
    main_snapshot,
    shards,
    state_of,
    whole_snapshot,
)
from hsd_cli.storage import write_atomically

DESCRIPTIONS = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", *TOKENIZERS, *CONVERTIBLE,
)  # fmt: skip
NAMED = 8  # files, where there are many to choose from

Watcher = Callable[[str, int], None]  # is told a file's name, and how many bytes of all files are here


@dataclass(frozen=True)
class Pull:
    """The files of one commit that a run needs, weights last. ``name`` is what people type."""

    name: str
    repository: Repository
    files: tuple[RemoteFile, ...]

    @classmethod
    def planned(
        cls,
        name: str,
        revision: str = MAIN,
        *,
        tokenizer_only: bool = False,
        allow_pickle: bool = False,
        trust_remote_code: bool = False,
    ) -> Pull:
        """Asks the hub what there is. Raises ``HsdError``, also where no weights are safe to load.

        ``trust_remote_code`` takes the checkpoint's own code along, which is not run here. Of a GGUF file nothing but
        itself is needed.
        """
        wanted = (*DESCRIPTIONS, CODE) if trust_remote_code else DESCRIPTIONS
        file = hub_file(name)
        try:
            repository = Repository.read(name if file is None else file.repository, revision)
            if file is not None:
                return cls(name, repository, (_gguf(repository, file),))
            names = [name for name in repository.files if any(fnmatchcase(name, pattern) for pattern in wanted)]
            if not tokenizer_only:
                names += _weights(repository, allow_pickle)
            return cls(name, repository, tuple(repository.files[name] for name in names))
        except Exception as error:
            raise explain_failure(name, "model", error) from error

    @property
    def place(self) -> Path:
        """The folder of the snapshot, or the GGUF file in it."""
        return self.repository.snapshot / self.files[0].name if self._is_gguf else self.repository.snapshot

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes of them that are still to come."""
        return self.size - sum(map(self.repository.bytes_here, self.files))

    def run(self, watch: Watcher = lambda name, here: None) -> Path:
        """Downloads what is missing. Returns its place. Raises ``HsdError``."""
        before = 0
        try:
            for file in self.files:
                fetch(self.repository, file, partial(_tell, watch, file.name, before))
                before += file.size
            self._keep_others()
            self._remember_commit()
        except Exception as error:
            raise explain_failure(self.name, "model", error) from error
        return self.place

    @property
    def _is_gguf(self) -> bool:
        return hub_file(self.name) is not None

    def _keep_others(self) -> None:
        """A GGUF file and the rest of its repository are models of their own: what the commit in use has of the others
        is linked to where it has not changed, so that to download one takes no other out of use."""
        repository = self.repository
        used = main_snapshot(repository.name)
        if repository.revision != MAIN or used is None or used == repository.snapshot:
            return
        for file in repository.files.values():
            other = file not in self.files and (self._is_gguf or is_gguf_name(file.name))
            if other and (used / file.name).resolve() == repository.blob(file).resolve():
                fetch(repository, file, lambda here: None)

    def _remember_commit(self) -> None:
        """Last, so that the commit before it stays in use until this one is whole, if it ever is."""
        reference, revision = self.repository.reference, self.repository.revision
        incomplete = not self._is_gguf and state_of(self.repository.snapshot) != "whole"
        if revision == MAIN and incomplete and whole_snapshot(self.name):
            return
        if revision != self.repository.commit:
            reference.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(reference, self.repository.commit.encode(), private=False)


def _tell(watch: Watcher, name: str, before: int, here: int) -> None:
    watch(name, before + here)


def _weights(repository: Repository, allow_pickle: bool) -> list[str]:
    """The names of the files of one format, its index first. Raises ``HsdError`` if there is none that may be had."""
    name = repository.name
    for first in (*SAFETENSORS, *(PICKLES if allow_pickle else ())):
        if first in repository.files:
            return [first, *_shards(repository, first)] if first.endswith(INDEX) else [first]
    if any(pickle in repository.files for pickle in PICKLES):
        raise HsdError(
            f"{name!r} has its weights in pickle files only, which may run code when they are opened; if you trust "
            f"their author, run: hsd pull {name} --allow-pickle"
        )
    if files := _choice(repository):
        example = shlex.quote(f"{name}:{files[0]}")
        raise HsdError(f"{name!r} has GGUF files only; name one of them, such as {example} ({_listed(files)})")
    if ADAPTER_CONFIG in repository.files:
        raise HsdError(f"{name!r} is an adapter (LoRA or another one), not a model by itself; {merging()}")
    raise HsdError(f"{name!r} has no model.safetensors; hsd needs the weights in that format: choose another model")


def _gguf(repository: Repository, wanted: HubFile) -> RemoteFile:
    if wanted.file in repository.files:
        return repository.files[wanted.file]
    files = _choice(repository)
    there = _listed(files) if files else "there is no other GGUF file in one piece"
    raise HsdError(f"{repository.name!r} has no file {wanted.file!r}; {there}")


def _choice(repository: Repository) -> list[str]:
    """The GGUF files that are whole models."""
    return [name for name in repository.files if is_gguf_name(name) and not is_part(name)]


def _listed(files: list[str]) -> str:
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return f"it has {', '.join(files[:NAMED])}{more}"


def _shards(repository: Repository, index: str) -> list[str]:
    """The index is small, and needed anyway."""
    names = shards(fetch(repository, repository.files[index], lambda here: None))
    if missing := [name for name in names if name not in repository.files]:
        raise HsdError(f"{repository.name!r} lacks {missing[0]!r}, which its {index} names; choose another revision")
    return names
