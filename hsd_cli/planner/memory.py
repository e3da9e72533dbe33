"""What was measured of a pair, kept for later runs: tied to the files of both models, their devices and dtypes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any, Literal

import torch

from hsd_cli.errors import HsdError
from hsd_cli.models.locate import model_source
from hsd_cli.planner.speedup import RelativeCosts
from hsd_cli.storage import cache_folder, write_atomically

VERSION = 1  # of what is measured and of how it is written down
WEIGHTS = (".safetensors", ".bin")
DESCRIPTIONS = (".json", ".model", ".txt", ".tiktoken")  # configuration and tokenizer
PROBES, PROBE_BYTES = 64, 4096  # of a file of weights: reading all of it would take as long as loading it

Kind = Literal["greedy", "sampled"]


@dataclass(frozen=True)
class Trial:
    """Counts of one algorithm over the sample prompts; ``drafts`` of the ``iterations`` had something to propose.

    ``tested`` proposals are those whose predecessors in the draft were all accepted, so that ``acceptance`` is that of
    a single proposal, the ``a`` of the formula; ``drafted`` are all. ``draft_seconds``: of drafting one token, with all
    that belongs to it: the median of what an iteration took beyond its target pass.
    """

    iterations: int
    drafts: int
    drafted: int
    tested: int
    accepted: int
    draft_seconds: float

    def __post_init__(self) -> None:
        _check(0 <= self.accepted <= self.tested <= self.drafted)
        _check(0 < self.drafts <= min(self.iterations, self.tested))
        _check(0 <= self.draft_seconds < inf)

    @property
    def acceptance(self) -> float:
        return self.accepted / self.tested

    @property
    def share(self) -> float:
        """Of iterations that draft."""
        return self.drafts / self.iterations


@dataclass(frozen=True)
class PairRecord:
    """Measured on one machine: seconds of a target pass over ``k`` tokens in ``pass_seconds[k - 1]``, seconds of a
    drafter step, and the trials by algorithm. ``sampled`` is at temperature 1 under `rejection`.

    Raises ``ValueError`` for what nobody can have measured.
    """

    pass_seconds: tuple[float, ...]
    step_seconds: float
    greedy: Mapping[str, Trial]
    sampled: Mapping[str, Trial]

    def __post_init__(self) -> None:
        _check(len(self.pass_seconds) >= 2)
        _check(all(0 < seconds < inf for seconds in (*self.pass_seconds, self.step_seconds)))

    def trials(self, kind: Kind) -> Mapping[str, Trial]:
        return self.greedy if kind == "greedy" else self.sampled

    def costs(self, trial: Trial) -> RelativeCosts:
        """As measured with the algorithm of ``trial``."""
        plain = self.pass_seconds[0]
        return RelativeCosts(trial.draft_seconds / plain, [each / plain for each in self.pass_seconds])

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PairRecord:
        """Of what ``dataclasses.asdict`` makes of a record. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        greedy, sampled = (
            {name: Trial(**trial) for name, trial in data[kind].items()} for kind in ("greedy", "sampled")
        )
        return cls(tuple(data["pass_seconds"]), data["step_seconds"], greedy, sampled)


@dataclass(frozen=True)
class Placement:
    """A model, by the name that it is loaded by, and where and how it computes."""

    name: str
    device: torch.device
    dtype: torch.dtype


def pair_key(target: Placement, drafter: Placement) -> str | None:
    """The name of the pair's record; ``None`` if the weights of either are not on this machine."""
    parts = []
    for side in (target, drafter):
        content = _content_hash(side.name)
        if content is None:
            return None
        parts.append(f"{content} {_device_kind(side.device)} {side.dtype}")
    return hashlib.sha256("\n".join([str(VERSION), *parts]).encode()).hexdigest()


def remember(key: str, record: PairRecord) -> None:
    """Raises ``OSError`` where nothing can be written."""
    data = json.dumps({"version": VERSION, "key": key, "record": asdict(record)})
    write_atomically(_path(key), data.encode())


def recall(key: str) -> PairRecord | None:
    """What ``remember`` was given under ``key``; ``None`` if there is nothing, or nothing that can be trusted."""
    try:
        data = json.loads(_path(key).read_bytes())
        if (data["version"], data["key"]) != (VERSION, key):
            return None
        return PairRecord.from_json(data["record"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing, damaged or foreign
        return None


def _path(key: str) -> Path:
    return cache_folder() / "pairs" / f"{key}.json"


def _check(holds: bool) -> None:
    if not holds:
        raise ValueError("not a measurement")


def _device_kind(device: torch.device) -> str:
    """Devices of one kind are equally fast: another GPU is another machine."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@lru_cache
def _content_hash(name: str) -> str | None:
    """Hash of a model's files: its descriptions in full, its weights by size and samples. ``None`` without weights."""
    folder = _folder(name)
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder else []
    if not any(path.suffix in WEIGHTS for path in files):
        return None
    digest = hashlib.sha256()
    for path in files:
        if path.suffix in WEIGHTS + DESCRIPTIONS:
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            for part in _samples(path) if path.suffix in WEIGHTS else [path.read_bytes()]:
                digest.update(part)
    return digest.hexdigest()


def _folder(name: str) -> Path | None:
    """Where the model's files are, if it is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    with suppress(HsdError):
        source = Path(model_source(name))
        if source.is_dir():
            return source
        found = try_to_load_from_cache(name, "config.json")
        return Path(found).parent if isinstance(found, str) else None
    return None


def _samples(path: Path) -> Iterator[bytes]:
    """The beginning (the header that describes the tensors), and pieces at even distances: training changes them all."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for probe in range(PROBES):
            file.seek(size * probe // PROBES)
            yield file.read(PROBE_BYTES)
