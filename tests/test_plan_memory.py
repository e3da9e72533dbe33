"""What was measured of a pair is found again, for that pair as it was and for no other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hsd_cli.models import content
from hsd_cli.models.content import content_hash
from hsd_cli.planner import memory
from hsd_cli.planner.memory import Placement, recall, remember
from hsd_cli.planner.record import PairRecord, Trial
from tests.cli import checkpoint

TRIAL = Trial(iterations=10, drafts=8, drafted=30, tested=20, accepted=15, draft_seconds=0.01)
RECORD = PairRecord((0.1, 0.11, 0.12), 0.02, {"slem": TRIAL}, {"slrs": replace(TRIAL, accepted=5)})
Sides = tuple[Placement, Placement]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HSD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def sides(tmp_path: Path, cache: Path) -> Sides:
    target, drafter = (checkpoint(tmp_path / name, sharpness=sharp) for name, sharp in (("target", 8), ("drafter", 4)))
    cpu = torch.device("cpu")
    return Placement(target, cpu, torch.float32), Placement(drafter, cpu, torch.float32)


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the tiny files took long to read."""
    monkeypatch.setattr(content, "LARGE", 0)


def test_what_is_remembered_is_recalled(sides: Sides) -> None:
    assert recall(*sides) is None
    remember(*sides, RECORD)
    assert recall(*sides) == RECORD
    assert recall(*sides[::-1]) is None


@pytest.mark.parametrize("changed", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("side", [0, 1])
def test_changed_files_are_another_pair(sides: Sides, changed: str, side: int) -> None:
    remember(*sides, RECORD)
    path = Path(sides[side].name) / changed
    data, before = path.read_bytes(), path.stat()
    path.write_bytes(data[:-2] + data[-1:] + data[-2:-1] + b" ")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert recall(*sides) is None
    path.write_bytes(data)
    assert recall(*sides) == RECORD


def test_other_numbers_and_other_machines_are_measured_anew(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(*sides, RECORD)
    assert recall(sides[0], replace(sides[1], dtype=torch.bfloat16)) is None
    assert recall(sides[0], replace(sides[1], device=torch.device("mps"))) is None
    monkeypatch.setattr(memory, "VERSION", memory.VERSION + 1)
    assert recall(*sides) is None
    monkeypatch.undo()
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    assert recall(*sides) is None


def test_a_copy_of_a_model_is_the_same_model(sides: Sides, tmp_path: Path) -> None:
    remember(*sides, RECORD)
    copy = checkpoint(tmp_path / "copy", sharpness=8)
    assert recall(replace(sides[0], name=copy), sides[1]) == RECORD


def test_without_weights_there_is_nothing_to_remember(sides: Sides, cache: Path) -> None:
    (Path(sides[1].name) / "model.safetensors").unlink()
    remember(*sides, RECORD)
    assert not list(cache.rglob("*.json"))
    assert recall(*sides) is None


def _edited(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def edit(data: dict[str, Any]) -> dict[str, Any]:
        data["record"]["greedy"]["slem"] |= changes
        return data

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: None,
        lambda data: [],
        lambda data: data | {"key": "another"},
        lambda data: {"key": data["key"]},
        lambda data: data | {"record": {}},
        lambda data: data | {"record": data["record"] | {"pass_seconds": [0.1]}},
        lambda data: data | {"record": data["record"] | {"pass_seconds": [0.0, 0.1]}},
        lambda data: data | {"record": data["record"] | {"step_seconds": "fast"}},
        lambda data: data | {"record": data["record"] | {"sampled": []}},
        _edited(accepted=21),
        _edited(drafts=0),
        _edited(draft_seconds=float("nan")),
        _edited(draft_seconds=float("inf")),
        _edited(new_field=1),
    ],
)
def test_damaged_and_foreign_records_are_ignored(sides: Sides, cache: Path, damage: Callable[[Any], Any]) -> None:
    remember(*sides, RECORD)
    (path,) = (cache / "pairs").iterdir()
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    assert recall(*sides) is None


def test_half_a_record_is_ignored(sides: Sides, cache: Path) -> None:
    remember(*sides, RECORD)
    (path,) = (cache / "pairs").iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    assert recall(*sides) is None


def test_a_disk_that_fails_keeps_the_record_that_was_there(
    sides: Sides, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(*sides, RECORD)

    def fail(*paths: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        remember(*sides, replace(RECORD, step_seconds=0.5))
    assert recall(*sides) == RECORD
    assert len(list((cache / "pairs").iterdir())) == 1


# Hashes of large files


def test_large_files_are_read_once(sides: Sides, small_is_large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    name = sides[0].name
    assert content_hash(name, read=False) is None
    found = content_hash(name, read=True)
    assert found is not None
    monkeypatch.delattr(content, "_read_hash")
    assert content_hash(name, read=False) == content_hash(name, read=True) == found


def test_a_large_file_that_was_touched_is_read_again(sides: Sides, small_is_large: None) -> None:
    name = sides[0].name
    found = content_hash(name, read=True)
    os.utime(Path(name) / "model.safetensors", ns=(1, 1))
    assert content_hash(name, read=False) is None
    assert content_hash(name, read=True) == found


@pytest.mark.parametrize("note", [b"", b"\xff", b"not a hash"])
def test_damaged_notes_of_hashes_are_ignored(sides: Sides, small_is_large: None, cache: Path, note: bytes) -> None:
    found = content_hash(sides[0].name, read=True)
    for path in (cache / "hashes").iterdir():
        path.write_bytes(note)
    assert content_hash(sides[0].name, read=False) is None
    assert content_hash(sides[0].name, read=True) == found


def test_the_hub_s_cache_names_files_by_their_hash(
    tmp_path: Path, small_is_large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delattr(content, "_read_hash")
    repository = tmp_path / "models--someone--model"
    for folder in ("refs", "blobs", "snapshots/c0ffee"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs/main").write_text("c0ffee")
    hashes = []
    for blob in ("a" * 64, "b" * 64):
        for name, target in (("config.json", "c" * 40), ("model.safetensors", blob)):
            (repository / "blobs" / target).touch()
            link = repository / "snapshots/c0ffee" / name
            link.unlink(missing_ok=True)
            link.symlink_to(f"../../blobs/{target}")
        hashes.append(content_hash("someone/model", read=False))
    assert None not in hashes
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("name", ["nobody/nothing", "not a name", "./nowhere"])
def test_models_that_are_not_here_have_no_hash(name: str) -> None:
    assert content_hash(name, read=True) is None
