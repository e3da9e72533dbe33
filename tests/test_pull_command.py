"""`hsd pull`, and what other commands do about models that are not here, against a hub on this machine."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.breadth import thorough
from tests.cli import COMMAND, Result, checkpoint, hsd, shell_hsd, started_hsd
from tests.hub import Hub, Repository, use
from tests.terminal import Terminal

NEEDED = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
WEIGHTS = "model.safetensors"
# What repositories hold besides.
OTHERS = [
    ".gitattributes", "README.md", "pytorch_model.bin", "model.fp16.safetensors", "consolidated.safetensors",
    "consolidated.00.pth", "model-q4.gguf", "tf_model.h5", "flax_model.msgpack", "modeling.py", "training_args.bin",
    "original/model.safetensors", "onnx/model.onnx",
]  # fmt: skip
TOKEN = "hf_oBrieflyKnownToTheHubAlone"


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The files of a model that continues the alphabet."""
    return Repository.of_folder(checkpoint(tmp_path_factory.mktemp("letters")))


@pytest.fixture
def model(letters: Repository) -> Repository:
    return Repository(letters.files | dict.fromkeys(OTHERS, b"not needed"))


@pytest.fixture
def hub(model: Repository) -> Iterator[Hub]:
    with Hub({"some/model": model}) as serving:
        yield serving


@pytest.fixture
def surroundings(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of a process that has this hub, and nothing in its cache."""
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    home, notes = str(tmp_path / "home"), str(tmp_path / "notes")
    return {"HF_ENDPOINT": hub.address, "HF_HOME": home, "HSD_CACHE": notes, "HF_HUB_OFFLINE": "0"}


@pytest.fixture
def cache(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same for commands in this process."""
    return use(hub, tmp_path, monkeypatch)


def files_in(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def blobs(cache: Path, name: str = "some/model") -> list[Path]:
    return sorted((cache / f"models--{name.replace('/', '--')}" / "blobs").iterdir())


def assert_one_line(result: Result, sentence: str, code: int = 1) -> None:
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("hsd: ")
    assert sentence in result.err
    assert result.err.count("\n") == 1


# What is downloaded


def test_a_pulled_model_runs_without_the_hub(model: Repository, surroundings: dict[str, str], tmp_path: Path) -> None:
    with Hub({"some/model": model}) as hub:
        pulled = shell_hsd("pull", "some/model", **surroundings | {"HF_ENDPOINT": hub.address})
    folder = tmp_path / "home" / "hub" / "models--some--model" / "snapshots" / model.commit
    assert pulled == (0, f"{folder}\n", "hsd: some/model: 13.2 kB downloaded\n")
    assert files_in(folder) == NEEDED
    assert all((folder / name).read_bytes() == model.files[name] for name in NEEDED)
    gone = surroundings | {"HF_ENDPOINT": hub.address}
    result = shell_hsd("generate", "--json", "-t", "some/model", "-n", "3", "a", **gone)
    assert (result.code, result.err) == (0, "")
    described = json.loads(result.out)
    assert (described["text"], described["target"]["revision"]) == ("bcd", model.commit)


def test_what_is_here_is_not_downloaded_again(hub: Hub, cache: Path) -> None:
    first = hsd("pull", "some/model")
    assert first.err.startswith("hsd: some/model: 13.2 kB downloaded")
    hub.requests.clear()
    assert hsd("pull", "some/model") == (0, first.out, "hsd: some/model: nothing to download\n")
    assert hub.downloads == []


def test_other_tools_find_what_was_pulled(model: Repository, cache: Path) -> None:
    from huggingface_hub import snapshot_download

    folder = hsd("pull", "-q", "some/model").out.strip()
    assert snapshot_download("some/model", local_files_only=True, allow_patterns=NEEDED) == folder


def test_without_weights_if_only_the_tokenizer_is_wanted(hub: Hub, cache: Path) -> None:
    result = hsd("pull", "--tokenizer-only", "-q", "some/model")
    assert (result.code, result.err) == (0, "")
    assert files_in(result.out.strip()) == [name for name in NEEDED if name != WEIGHTS]
    assert_one_line(
        hsd("generate", "-t", "some/model", "a"), "'some/model' is not downloaded; run: hsd pull some/model"
    )
    hub.requests.clear()
    assert hsd("pull", "-q", "some/model").code == 0
    assert hub.downloads == [(WEIGHTS, None)]


def test_several_models_are_looked_up_before_the_first_is_downloaded(
    hub: Hub, cache: Path, letters: Repository
) -> None:
    hub.repositories["other/model"] = letters
    assert_one_line(hsd("pull", "some/model", "other/model", "no/model"), "no model 'no/model' on the hub")
    assert hub.downloads == []
    result = hsd("pull", "--json", "-q", "some/model", "other/model", "some/model")
    assert (result.code, result.err) == (0, "")
    described = json.loads(result.out)["models"]
    assert [entry["id"] for entry in described] == ["some/model", "other/model"]
    assert [entry["revision"] for entry in described] == [repository.commit for repository in hub.repositories.values()]
    for entry in described:
        assert sorted(entry["files"]) == files_in(entry["folder"]) == NEEDED
        assert entry["bytes"] == entry["downloaded_bytes"] == sum(len(letters.files[name]) for name in NEEDED)


def test_another_revision_is_used_by_its_folder(model: Repository, cache: Path) -> None:
    model.revisions = ("main", "v1")
    folder = hsd("pull", "-q", "some/model", "--revision", "v1").out.strip()
    assert hsd("generate", "-q", "-t", folder, "-n", 3, "a").out == "bcd"
    assert_one_line(hsd("generate", "-t", "some/model", "a"), "is not downloaded")
    assert_one_line(
        hsd("pull", "some/model", "--revision", "v2"), "'some/model' has no such revision; leave --revision out"
    )


def test_a_whole_model_stays_in_use_until_a_newer_commit_is_whole(cache: Path, model: Repository) -> None:
    whole = model.commit
    hsd("pull", "some/model")
    model.files["tokenizer_config.json"] += b" "
    assert whole != model.commit
    hsd("pull", "--tokenizer-only", "some/model")
    assert json.loads(hsd("generate", "--json", "-t", "some/model", "-n", 1, "a").out)["target"]["revision"] == whole
    hsd("pull", "some/model")
    newer = json.loads(hsd("generate", "--json", "-t", "some/model", "-n", 1, "a").out)["target"]["revision"]
    assert newer == model.commit


def test_the_index_says_which_files_the_weights_are_split_over(hub: Hub, cache: Path, model: Repository) -> None:
    del model.files[WEIGHTS]
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = json.dumps({"weight_map": dict(zip("abc", [*shards, shards[0]], strict=True))}).encode()
    left_over = {"model-00001-of-00003.safetensors": b"of an older upload"}
    model.files |= {"model.safetensors.index.json": index, **dict.fromkeys(shards, b"a shard"), **left_over}
    result = hsd("pull", "-q", "some/model")
    assert result.code == 0
    wanted = sorted([*(set(NEEDED) - {WEIGHTS}), *shards, "model.safetensors.index.json"])
    assert files_in(result.out.strip()) == wanted
    del model.files[shards[1]]
    assert_one_line(hsd("pull", "some/model"), f"'some/model' lacks '{shards[1]}'")


def test_pickled_weights_need_a_flag(hub: Hub, cache: Path, model: Repository) -> None:
    del model.files[WEIGHTS]
    assert_one_line(hsd("pull", "some/model"), "run: hsd pull some/model --allow-pickle")
    assert_one_line(hsd("generate", "--pull", "-t", "some/model", "a"), "run: hsd pull some/model --allow-pickle")
    assert hub.downloads == []
    result = hsd("pull", "-q", "some/model", "--allow-pickle")
    assert "pytorch_model.bin" in files_in(result.out.strip())


def test_the_flag_does_not_prefer_pickles(cache: Path) -> None:
    assert files_in(hsd("pull", "-q", "some/model", "--allow-pickle").out.strip()) == NEEDED


def test_a_repository_without_weights_is_one_line(cache: Path, model: Repository) -> None:
    del model.files[WEIGHTS], model.files["pytorch_model.bin"]
    assert_one_line(
        hsd("pull", "some/model"), "has GGUF files only; name one of them, such as some/model:model-q4.gguf"
    )
    del model.files["model-q4.gguf"]
    assert_one_line(hsd("pull", "some/model"), "'some/model' has no model.safetensors")


# What can go wrong


def test_a_broken_connection_is_resumed(hub: Hub, cache: Path, model: Repository) -> None:
    model.breaking[WEIGHTS] = [1000, 300]
    result = hsd("pull", "-q", "some/model")
    assert (result.code, result.err) == (0, "")
    ranges = [wanted for name, wanted in hub.downloads if name == WEIGHTS]
    assert ranges == [None, "bytes=1000-", "bytes=1300-"]
    assert (Path(result.out.strip()) / WEIGHTS).read_bytes() == model.files[WEIGHTS]


def test_where_ranges_are_not_served_the_file_begins_again(cache: Path, model: Repository) -> None:
    model.without_ranges = True
    model.breaking[WEIGHTS] = [1000]
    folder = hsd("pull", "-q", "some/model").out.strip()
    assert (Path(folder) / WEIGHTS).read_bytes() == model.files[WEIGHTS]


def test_a_connection_that_keeps_breaking_is_given_up_and_resumed_later(
    hub: Hub, cache: Path, model: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsd_cli.models.fetch.PAUSE", 0)
    model.breaking[WEIGHTS] = [1000, *[0] * 10]
    assert_one_line(
        hsd("pull", "some/model"), "no connection to the hub (any more); check the network, then run: hsd pull"
    )
    assert [path.stat().st_size for path in blobs(cache) if path.suffix == ".incomplete"] == [1000]
    model.breaking.clear()
    hub.requests.clear()
    assert hsd("pull", "some/model").code == 0
    assert hub.downloads == [(WEIGHTS, "bytes=1000-")]


def test_ctrl_c_keeps_what_has_arrived(
    hub: Hub, surroundings: dict[str, str], model: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model.stalling[WEIGHTS] = 1000
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    running = started_hsd("pull", "some/model")
    assert hub.stalled.wait(60)
    arrived = tmp_path / f"home/hub/models--some--model/blobs/{model.digest(WEIGHTS)}.incomplete"
    deadline = time.monotonic() + 60
    while not (arrived.is_file() and arrived.stat().st_size == 1000) and time.monotonic() < deadline:
        time.sleep(0.01)  # nothing tells when the other process has written what was sent to it
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, b"", b"")
    model.stalling.clear()
    hub.requests.clear()
    result = shell_hsd("generate", "-q", "--pull", "-t", "some/model", "-n", "3", "a")
    assert result == (0, "bcd", "")
    assert hub.downloads == [(WEIGHTS, "bytes=1000-")]


@pytest.mark.parametrize("commit", ["../../../../elsewhere", "x"])
def test_what_does_not_answer_as_a_hub_is_one_line(hub: Hub, cache: Path, model: Repository, commit: str) -> None:
    model.commit_claimed = commit
    assert_one_line(hsd("pull", "some/model"), f"{hub.address} does not answer as a hub does for 'some/model'")
    assert not cache.exists()


def test_the_checksum_decides_not_the_claimed_size(cache: Path, model: Repository) -> None:
    model.claimed_sizes[WEIGHTS] = len(model.files[WEIGHTS]) + 1
    assert hsd("pull", "-q", "some/model").code == 0


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_what_arrives_damaged_is_deleted(hub: Hub, cache: Path, model: Repository, name: str) -> None:
    model.damaged.add(name)
    assert_one_line(hsd("pull", "some/model"), f"{name} of 'some/model' arrived damaged")
    assert not any(path.name.startswith(model.digest(name)) for path in blobs(cache))
    assert_one_line(hsd("generate", "-t", "some/model", "a"), "is not downloaded")
    model.damaged.clear()
    assert hsd("pull", "-q", "some/model").code == 0


@pytest.mark.parametrize(
    ("status", "reasons", "sentence"),
    [
        (401, {"X-Error-Code": "GatedRepo"}, "is gated: accept its terms at {hub}/some/model, then run: hf auth login"),
        (403, {"X-Error-Code": "GatedRepo"}, "is gated: accept its terms at {hub}/some/model, then run: hf auth login"),
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, "run: hf auth login"),
        (403, {}, "your token may not read 'some/model'"),
        (404, {"X-Error-Code": "RepoNotFound"}, "no model 'some/model' on the hub"),
        (429, {}, "wait some minutes, then run: hsd pull some/model"),
        (503, {}, "the hub answers 503 for 'some/model'; try again later with: hsd pull some/model"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    hub: Hub, cache: Path, model: Repository, status: int, reasons: dict[str, str], sentence: str
) -> None:
    model.refused = status, reasons
    assert_one_line(hsd("pull", "some/model"), sentence.format(hub=hub.address))
    assert_one_line(hsd("vocab-diff", "embedded:target", "some/model"), sentence.format(hub=hub.address))


def test_a_password_in_the_address_of_the_hub_is_not_shown(
    hub: Hub, model: Repository, surroundings: dict[str, str]
) -> None:
    model.refused = 403, {"X-Error-Code": "GatedRepo"}
    address = hub.address.replace("//", "//user:password@")
    assert_one_line(shell_hsd("pull", "some/model", **surroundings | {"HF_ENDPOINT": address}), f"{hub.address}/some/")


def test_the_room_on_the_disk_is_looked_at_first(hub: Hub, cache: Path, model: Repository) -> None:
    model.claimed_sizes[WEIGHTS] = 10**18
    result = hsd("pull", "some/model")
    assert_one_line(result, "'some/model': 1000000 TB to download, and '")
    assert " free; delete models with `hsd rm`, or set HF_HOME" in result.err
    assert hub.downloads == []


def test_offline_mode_is_obeyed(hub: Hub, surroundings: dict[str, str]) -> None:
    offline = surroundings | {"HF_HUB_OFFLINE": "1"}
    for command in (["pull", "some/model"], ["generate", "--pull", "-t", "some/model", "a"]):
        result = shell_hsd(*command, **offline)
        assert_one_line(result, "HF_HUB_OFFLINE forbids it; unset HF_HUB_OFFLINE, then run: hsd pull some/model")
    assert hub.requests == []


def test_without_a_network_it_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert_one_line(hsd("pull", "some/model"), "check the network, then run: hsd pull some/model")


@pytest.mark.parametrize("name", ["embedded:target", "./here", "two words", "../../etc"])
def test_only_ids_are_pulled(cache: Path, name: str, tmp_path: Path) -> None:
    result = hsd("pull", name)
    assert result.code in (1, 2)
    assert name in result.err


@thorough
def test_the_token_is_for_the_hub_alone(hub: Hub, surroundings: dict[str, str], model: Repository) -> None:
    said = ""
    for refused in (None, (403, {"X-Error-Code": "GatedRepo"})):
        model.refused = refused
        for options in (["--json"], []):
            result = shell_hsd("pull", "some/model", *options, **surroundings, HF_TOKEN=TOKEN, HSD_DEBUG="1")
            said += result.out + result.err
    asked = [request for request in hub.requests if "some/model" in request.path]
    carriers = {request.headers.get("Authorization") for request in asked if not request.path.startswith("/cdn/")}
    assert carriers == {f"Bearer {TOKEN}"}
    assert {request.headers.get("Authorization") for request in asked if request.path.startswith("/cdn/")} == {None}
    assert "some/model" in said
    assert TOKEN not in said


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_token_that_cannot_be_one_is_not_quoted(hub: Hub, surroundings: dict[str, str], debug: str) -> None:
    result = shell_hsd("pull", "some/model", **surroundings, HF_TOKEN=f"{TOKEN}\x0b{TOKEN}", HSD_DEBUG=debug)
    assert "your hub token has characters that no token has" in result.err
    assert TOKEN not in result.err
    assert hub.requests == []


# Commands that need models


def test_plans_and_comparisons_fetch_small_files_only(hub: Hub, cache: Path) -> None:
    assert json.loads(hsd("vocab-diff", "--json", "embedded:target", "some/model").out)["same_vocabulary"] is False
    assert hsd("plan", "--json", "some/model", "embedded:drafter").code == 0
    assert sorted(hub.downloads) == [(name, None) for name in NEEDED if name != WEIGHTS]


def test_verify_and_measured_plans_pull_what_is_missing(hub: Hub, cache: Path) -> None:
    for command in (["plan", "--measure"], ["verify"]):
        assert_one_line(hsd(*command, "some/model", "some/model"), "(or add --pull)")
    assert all(name != WEIGHTS for name, _ in hub.downloads)
    assert hsd("verify", "--pull", "-q", "some/model", "some/model", "-a", "sd", "-n", 4, "--samples", 10).code == 0
    assert [name for name, _ in hub.downloads].count(WEIGHTS) == 1


@thorough
@pytest.mark.parametrize(("keys", "pulled"), [("\r", True), ("n\r", False)])
def test_on_a_terminal_there_is_a_question(hub: Hub, surroundings: dict[str, str], keys: str, pulled: bool) -> None:
    command = [*COMMAND, "generate", "--no-stats", "--no-live", "-t", "some/model", "-n", "3", "a"]
    with Terminal(*command, environment=surroundings) as terminal:
        terminal.wait_for("Pull some/model (13.2 kB)? [Y/n]:")
        assert hub.downloads == []
        terminal.send(keys)
        assert terminal.wait() == (0 if pulled else 1)
        last = terminal.text.splitlines()[-1]
    assert last == "bcd" if pulled else "is not downloaded; run: hsd pull some/model" in terminal.text


def test_ctrl_c_at_the_question_leaves(hub: Hub, surroundings: dict[str, str]) -> None:
    with Terminal(*COMMAND, "generate", "-t", "some/model", "a", environment=surroundings) as terminal:
        terminal.wait_for("[Y/n]:")
        terminal.send("\x03")
        assert terminal.wait() == 130
        assert "Abort" not in terminal.text


def test_a_terminal_shows_the_progress_and_it_is_gone_afterwards(
    hub: Hub, surroundings: dict[str, str], model: Repository
) -> None:
    model.stalling[WEIGHTS] = 4000
    with Terminal(*COMMAND, "pull", "some/model", environment=surroundings, columns=100) as terminal:
        terminal.wait_for("model.safetensors")
        assert "/13.2 kB" in terminal.text
        os.killpg(terminal.process.pid, signal.SIGINT)
        assert terminal.wait() == 130
        assert "model.safetensors" not in terminal.text
        assert terminal.sent.rindex(b"\x1b[?25h") > terminal.sent.rindex(b"\x1b[?25l")  # the cursor is back
