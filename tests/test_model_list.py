"""`hsd list` and `hsd rm`, in a cache as the hub's library keeps it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hsd_cli.models.roles import remember_role, roles
from hsd_cli.ui.model_table import since
from tests.cli import COMMAND, hsd
from tests.terminal import Terminal

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DESCRIPTION = {"config.json": b"{}", "tokenizer.json": b"{}"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HSD_CACHE", str(tmp_path / "notes"))
    return tmp_path / "hub"


def cached(cache: Path, name: str, files: dict[str, bytes], partial: bytes = b"") -> Path:
    """A repository with one commit of ``main``; returns its folder."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for number, (file, data) in enumerate(files.items()):
        blob = repository / "blobs" / f"{number:040}"
        blob.write_bytes(data)
        (snapshot / file).symlink_to(f"../../blobs/{blob.name}")
    if partial:
        (repository / "blobs" / ("f" * 64 + ".incomplete")).write_bytes(partial)
    return repository


@pytest.fixture
def models(cache: Path) -> None:
    """One of each state, and what is no model: folders for a download that was refused, and texts."""
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    cached(cache, "some/whole", DESCRIPTION | {"model.safetensors": b"w" * 1_500_000})
    cached(cache, "some/tokenizer", DESCRIPTION)
    cached(cache, "some/broken-off", DESCRIPTION, partial=b"w" * 2500)
    cached(cache, "some/shard", DESCRIPTION | {"model.safetensors.index.json": index, "model-1.safetensors": b"w"})
    cached(cache, "pictures", {"README.md": b"no language model"})
    cached(cache, "some/refused", {})
    (cache / "datasets--some--texts" / "snapshots").mkdir(parents=True)


STATES = {
    "pictures": "no model",
    "some/broken-off": "partly downloaded",
    "some/shard": "partly downloaded",
    "some/tokenizer": "tokenizer only",
    "some/whole": "whole",
}


def test_the_list_tells_size_role_and_state(models: None) -> None:
    remember_role("some/whole", "drafter")
    result = hsd("list")
    assert (result.code, result.err) == (0, "")
    header, *lines = result.out.splitlines()
    assert header.split() == ["NAME", "SIZE", "LAST", "USED", "ROLE", "STATE"]
    assert [line.split()[0] for line in lines] == list(STATES)
    assert lines[-1].split() == ["some/whole", "1.5", "MB", "just", "now", "drafter", "whole"]
    assert lines[1].split() == ["some/broken-off", "2.5", "kB", "just", "now", "–", "partly", "downloaded"]


def test_the_list_for_machines(models: None) -> None:
    remember_role("some/whole", "target")
    described = json.loads(hsd("list", "--json").out)["models"]
    assert {entry["id"]: entry["state"] for entry in described} == STATES
    whole = described[-1]
    assert (whole["bytes"], whole["role"], described[0]["role"]) == (1_500_004, "target", None)
    assert whole["last_used"].endswith("+00:00")
    assert hsd("list", "-q") == (0, "".join(f"{name}\n" for name in STATES), "")


def test_an_empty_cache_is_no_failure(cache: Path) -> None:
    assert hsd("list") == (0, "", "hsd: no models are downloaded yet; run: hsd pull ID\n")
    assert hsd("list", "-q") == (0, "", "")
    assert json.loads(hsd("list", "--json").out) == {"models": []}


def test_names_in_the_cache_cannot_write_to_the_terminal(cache: Path) -> None:
    cached(cache, "some/\x1b[2J[red]", DESCRIPTION)
    out = hsd("list").out
    assert "some/\\x1b[2J[red]" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "just now"), (59, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (86400 * 400, "1 year ago")],
)
def test_times_are_relative(seconds: float, words: str) -> None:
    assert since(1e9, 1e9 + seconds) == words


# Roles


def test_a_model_that_ran_has_a_role(cache: Path) -> None:
    assert hsd("generate", "-q", "-n", 1, "a").code == 0
    assert roles() == {"embedded:target": "target", "embedded:drafter": "drafter"}
    assert hsd("generate", "-q", "-n", 1, "-t", "embedded:drafter", "a").code == 0
    assert roles()["embedded:drafter"] == "target"


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"some/model": 3}'])
def test_damaged_notes_are_no_roles(cache: Path, data: bytes) -> None:
    remember_role("some/model", "target")
    file = Path(os.environ["HSD_CACHE"]) / "roles.json"
    file.write_bytes(data)
    assert roles() == {}
    remember_role("some/model", "drafter")
    assert roles() == {"some/model": "drafter"}


def test_where_nothing_can_be_written_there_are_no_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HSD_CACHE", str(tmp_path / "file"))
    remember_role("some/model", "target")
    assert roles() == {}


# Deleting


def test_models_are_deleted_with_what_broke_off_but_no_others_of_the_same_commit(models: None, cache: Path) -> None:
    result = hsd("rm", "--yes", "some/whole", "some/broken-off")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        "hsd: deleting some/whole (1.5 MB)",
        "hsd: deleting some/broken-off (2.5 kB)",
        "hsd: freed 1.5 MB",
    ]
    assert hsd("list", "-q").out.split() == ["pictures", "some/shard", "some/tokenizer"]
    assert not (cache / "models--some--broken-off").exists()
    assert hsd("rm", "-q", "-y", "pictures") == (0, "", "")


def test_a_dry_run_deletes_nothing(models: None) -> None:
    result = hsd("rm", "--dry-run", "--json", "some/whole", "some/whole")
    assert json.loads(result.out) == {
        "models": [{"id": "some/whole", "bytes": 1_500_004}],
        "bytes": 1_500_004,
        "dry_run": True,
    }
    assert result.err == "hsd: would delete some/whole (1.5 MB)\n"
    assert hsd("list", "-q").out.split() == list(STATES)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["some/whole"], "there is no terminal to ask on; add --yes to delete, or --dry-run"),
        (["-y", "some/whole", "some/other"], "'some/other' is not downloaded; see: hsd list"),
        (["-y", "embedded:target"], "'embedded:target' is not downloaded; see: hsd list"),
        (["-y", "../hub"], "'../hub' is not downloaded; see: hsd list"),
    ],
)
def test_what_is_not_meant_is_not_deleted(models: None, arguments: list[str], sentence: str) -> None:
    result = hsd("rm", *arguments)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err
    assert hsd("list", "-q").out.split() == list(STATES)


@pytest.mark.parametrize(("keys", "remaining"), [("y\r", []), ("\r", ["some/model"])])
def test_on_a_terminal_there_is_a_question(tmp_path: Path, keys: str, remaining: list[str]) -> None:
    cached(tmp_path, "some/model", DESCRIPTION | {"model.safetensors": b"w" * 5000})
    with Terminal(*COMMAND, "rm", "some/model", environment={"HF_HUB_CACHE": str(tmp_path)}) as terminal:
        terminal.wait_for("Delete 5 kB? [y/N]:")
        terminal.send(keys)
        assert terminal.wait() == len(remaining)
        assert terminal.lines[0] == "hsd: deleting some/model (5 kB)"
    assert [path.name for path in tmp_path.glob("models--*")] == [
        f"models--{'--'.join(n.split('/'))}" for n in remaining
    ]
