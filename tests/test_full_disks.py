"""Disks that are full in the middle of writing: one line, and what was there before is there still.

The limit on the size of files is the kernel's own way to end a write half-way, which needs no disk of our own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import PAIRS, Result, checkpoint, hsd
from tests.forks import forked_hsd
from tests.hub import Hub, Repository, use

OLD = "something that was written before"
NO_ROOM = "File too large"


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("pairs"), PAIRS)


@pytest.fixture(autouse=True)
def history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("HSD_HISTORY", "HSD_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path / "HSD_HISTORY"


def with_room_for(size: int) -> Callable[[], None]:
    """No file grows beyond so many bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def full(*arguments: object, stdin: bytes = b"", room: int = 0) -> Result:
    return forked_hsd(*arguments, stdin=stdin, prepare=with_room_for(room))


def cannot_write(path: Path) -> str:
    return f"hsd: cannot write {str(path)!r}: {NO_ROOM}\n"


def untouched(folder: Path, *names: str) -> bool:
    """Whether the folder has these files, as they were, and none that was begun beside them."""
    return {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(names, OLD)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With files that were written before."""
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / "folder" / name).write_text(OLD)
    return tmp_path / "folder"


def test_one_text_in_an_object(letters: str, folder: Path) -> None:
    done = full("generate", "-t", letters, "-n", 8, "--json", "-o", folder / "a", "a")
    assert done == (1, "", cannot_write(folder / "a"))
    assert untouched(folder, "a", "b")


def test_a_page_about_a_text_that_was_shown(letters: str, folder: Path) -> None:
    done = full("generate", "-q", "-t", letters, "-n", 8, "--report", folder / "a", "a")
    assert done == (1, "bcdefghi", cannot_write(folder / "a"))
    assert untouched(folder, "a", "b")


def test_a_text_that_grows_stays_as_far_as_there_was_room(letters: str, tmp_path: Path) -> None:
    file = tmp_path / "text"
    assert full("generate", "-q", "-t", letters, "-n", 50, "-o", file, "a", room=20) == (1, "", cannot_write(file))
    assert file.read_text() == "bcdefghijklmnopqrstu"


def test_a_text_that_grows_leaves_the_old_one_and_says_where_it_is(letters: str, folder: Path) -> None:
    part = folder / "a.hsd-part"
    done = full("generate", "-q", "-t", letters, "-n", 50, "-o", folder / "a", "a", room=35)
    assert done == (1, "", f"{cannot_write(folder / 'a')[:-1]}; what was written is in {str(part)!r}\n")
    assert part.read_text() == "bcdefghijklmnopqrstuvwxyz\nabcdefghi"
    part.unlink()
    assert untouched(folder, "a", "b")


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_texts_of_files(letters: str, tmp_path: Path, folder: Path, form: list[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "in" / name).write_text("a")
    arguments = ["generate", "-q", "-t", letters, "-n", 8, "-f", tmp_path / "in/*", "--output-dir", folder, *form]
    assert full(*arguments) == (1, "", cannot_write(folder / "a"))
    assert untouched(folder, "a", "b")
    assert hsd(*arguments) == (0, "", "")
    assert not any(path.read_text() == OLD for path in folder.iterdir())


def test_records_stay_and_the_same_command_goes_on(letters: str, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"id": n, "prompt": "a"}) + "\n" for n in range(6)))
    arguments = ["generate", "-q", "-t", letters, "-n", 8, "-i", source, "-o", output]
    assert full(*arguments, room=1500) == (1, "", cannot_write(output))
    before = output.read_bytes()
    assert [json.loads(line)["text"] for line in before.splitlines()] == ["bcdefghi"] * before.count(b"\n")
    assert 0 < before.count(b"\n") < 6
    assert before.endswith(b"\n")
    assert hsd(*arguments).code == 0
    assert output.read_bytes().startswith(before)
    assert output.read_bytes().count(b"\n") == 6


def test_errors_that_are_to_be_tried_again_stay_where_they_cannot_be_taken_out(letters: str, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a"}\n{"prompt": ""}\n')
    arguments = ["generate", "-q", "-t", letters, "-n", 8, "-i", source, "-o", output]
    assert hsd(*arguments).code == 1
    before = output.read_bytes()
    source.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert full(*arguments) == (1, "", cannot_write(output))
    assert output.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl", "HSD_CACHE"}


def test_a_measurement_is_shown_though_its_files_cannot_be_written(letters: str, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "prompts").write_text("a\n")
    arguments = ["bench", "-q", "-t", letters, "--prompts", tmp_path / "prompts", "-n", 8, "--repeats", 1]
    for option in ("--json", "--html"):
        done = full(*arguments, "--algorithms", "lookup", option, folder / "a")
        assert (done.code, done.err) == (1, cannot_write(folder / "a"))
        assert "lookup" in done.out
        assert untouched(folder, "a", "b")


def test_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config" / "config.toml"
    monkeypatch.setenv("HSD_CONFIG", str(file))
    for key in ("seed", "top-k"):
        assert hsd("config", "set", key, 1).code == 0
    reason = f"hsd: cannot write the configuration {str(file)!r}: {NO_ROOM}\n"
    assert full("config", "set", "seed", 2) == (1, "", reason)
    assert full("config", "unset", "seed") == (1, "", reason)
    assert file.read_text() == "seed = 1\ntop-k = 1\n"
    assert list(file.parent.iterdir()) == [file]


def test_a_chat_goes_on_and_says_that_it_is_not_kept(letters: str, tmp_path: Path, history: Path) -> None:
    chat = ["chat", "-t", letters, "-n", 3, "--no-stats"]
    assert hsd(*chat, "-q", stdin=b"a\n").code == 0
    before = (history / "last-chat.json").read_bytes()
    done = full(*chat, stdin=f"b\nc\n/save {tmp_path / 'chat'}\n".encode())
    assert (done.code, done.out) == (1, "abc\nabc\n")
    last = str(history / "last-chat.json")
    assert done.err.splitlines()[1:] == [
        f"this chat is not kept: cannot write {last!r}: {NO_ROOM}",
        cannot_write(tmp_path / "chat").removesuffix("\n"),
    ]
    assert (history / "last-chat.json").read_bytes() == before
    assert {path.name for path in history.iterdir()} == {"last-chat.json"}
    assert not (tmp_path / "chat").exists()


def test_a_plan_is_shown_and_measured_again_the_next_time(letters: str, pairs: str, tmp_path: Path) -> None:
    (tmp_path / "prompts").write_text("a\n")
    plan = ["plan", letters, pairs, "--measure", "--prompts", tmp_path / "prompts", "-q", "--json"]
    done = full(*plan)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["drafters"][0]["measured"]
    assert not [path for path in tmp_path.rglob("HSD_CACHE/**/*") if path.is_file()]


# A disk that really is full


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root can make a disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, room: int = 0) -> None:
    """Leaves ``room`` bytes."""
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_frsize - room))


def test_a_full_disk_costs_no_old_text(letters: str, tmp_path: Path, disk: Path) -> None:
    (tmp_path / "a").write_text("a")
    (disk / "out").mkdir()
    (disk / "out" / "a").write_text(OLD)
    fill(disk)
    done = hsd("generate", "-q", "-t", letters, "-n", 8, "-f", tmp_path / "a", "--output-dir", disk / "out")
    assert done == (1, "", f"hsd: cannot write {str(disk / 'out/a')!r}: No space left on device\n")
    assert (disk / "out" / "a").read_text() == OLD


def test_a_download_that_fills_the_disk_goes_on_when_there_is_room(
    letters: str, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Repository.of_folder(letters)
    model.files["model.safetensors"] += b"\0" * 60_000
    model.claimed_sizes["model.safetensors"] = 1  # or the lack of room would be seen beforehand
    with Hub({"some/model": model}) as hub:
        use(hub, disk, monkeypatch)
        fill(disk, room=50_000)
        done = forked_hsd("pull", "some/model")
        reason = "the disk is full; delete models with `hsd rm`, then run: hsd pull some/model"
        assert done == (1, "", f"hsd: {reason}\n")
        (disk / "filler").unlink()
        del model.claimed_sizes["model.safetensors"]
        again = hsd("pull", "-q", "some/model")
        assert (again.code, again.err) == (0, "")
    assert (Path(again.out.strip()) / "model.safetensors").read_bytes() == model.files["model.safetensors"]
