"""Small files that are kept between runs: whole or not there, for their owner alone, and with two writers at once."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hsd_cli.config.file import ConfigFile
from hsd_cli.models.roles import roles
from hsd_cli.storage import write_atomically
from tests.cli import PAIRS, checkpoint, hsd
from tests.forks import Fork, forked_hsd


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of it is there yet."""
    home = tmp_path / "a" / "home"
    for name in ("HSD_CACHE", "HSD_HISTORY"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("HSD_CONFIG", str(home / "config" / "config.toml"))
    return home


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("letters"))


def test_all_that_is_kept_is_for_its_owner_alone(home: Path, letters: str, tmp_path: Path) -> None:
    pairs = checkpoint(tmp_path / "pairs", PAIRS)
    (tmp_path / "prompts").write_text("a\n")
    assert hsd("chat", "-q", "-t", letters, "-n", 3, stdin=b"a\n").code == 0
    assert hsd("config", "set", "top-k", "7").code == 0
    assert hsd("plan", letters, pairs, "--measure", "--prompts", tmp_path / "prompts", "-q").code == 0
    assert hsd("generate", "-q", "-t", letters, "-d", pairs, "-a", "slrs", "-n", 3, "a").code == 0
    made = [tmp_path / "a", *(tmp_path / "a").rglob("*")]
    assert {path.name for path in made if path.is_file()} >= {"last-chat.json", "config.toml", "roles.json"}
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in made}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in made}


def test_others_files_keep_their_modes_and_folders(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, b"new", private=False)
    (tmp_path / "usual").touch()
    assert file.stat().st_mode == (tmp_path / "usual").stat().st_mode
    file.chmod(0o640)
    write_atomically(file, b"newer", private=False)
    assert (stat.S_IMODE(file.stat().st_mode), file.read_bytes()) == (0o640, b"newer")
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file", b"", private=False)


def at_once(*commands: Callable[[], object]) -> None:
    """Each in a process of its own."""
    forks = [Fork([], 0, 1, 2, prepare=partial(leaving_after, command)) for command in commands]
    assert [fork.wait() for fork in forks] == [0] * len(forks)


def leaving_after(command: Callable[[], object]) -> None:
    command()
    sys.exit(0)


def test_edits_of_the_configuration_at_once_are_all_there(home: Path) -> None:
    file = home / "config" / "config.toml"

    def naming_pairs(name: str) -> Callable[[], None]:
        def run() -> None:
            for number in range(20):
                ConfigFile(file).set(f"pairs.{name}{number}.target", name)

        return run

    at_once(*map(naming_pairs, "abc"))
    assert ConfigFile(file).pairs == {f"{name}{number}": {"target": name} for name in "abc" for number in range(20)}


def test_two_chats_at_once_leave_one_of_them_whole(home: Path, letters: str) -> None:
    def talking(question: str) -> Callable[[], object]:
        return partial(hsd, "chat", "-q", "-t", letters, "-n", 3, stdin=f"{question}\n".encode() * 20)

    at_once(talking("a"), talking("k"))
    kept = json.loads((home / "hsd_history" / "last-chat.json").read_text())
    assert {message["content"] for message in kept["messages"][::2]} in ({"a"}, {"k"})
    assert len(kept["messages"]) == 40


def test_two_runs_at_once_are_both_remembered(home: Path, tmp_path: Path) -> None:
    models = [checkpoint(tmp_path / name) for name in "pqrs"]

    at_once(*(partial(hsd, "generate", "-q", "-t", model, "-n", 1, "a") for model in models))
    assert roles() == dict.fromkeys(models, "target")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"x": 3}', b"\xff\x00", b"[" * 100_000])
def test_damaged_notes_cost_nothing(home: Path, letters: str, tmp_path: Path, content: bytes) -> None:
    pairs = checkpoint(tmp_path / "pairs", PAIRS)
    command = ("generate", "--no-stats", "-t", letters, "-d", pairs, "-a", "slrs", "-n", 8, "a")
    assert hsd(*command) == (0, "bcdefghi", "")
    notes = [path for path in (home / "hsd_cache").rglob("*") if path.is_file()]
    assert notes
    for path in notes:
        path.write_bytes(content)
    assert hsd(*command) == (0, "bcdefghi", "")
    assert hsd("list", "--json").code == 0


def test_a_place_that_cannot_be_written_costs_nothing(home: Path, letters: str) -> None:
    home.parent.mkdir()
    home.touch()  # where folders would have to be
    assert hsd("generate", "--no-stats", "-t", letters, "-n", 3, "a") == (0, "bcd", "")
    done = forked_hsd("chat", "--no-stats", "-t", letters, "-n", 3, stdin=b"a\nb\n")
    assert (done.code, done.out) == (0, "abc\nabc\n")
    assert done.err.count("this chat is not kept: cannot write ") == 1
