"""``hsd doctor``: what it finds on a sound machine, and on machines that lack something."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

from hsd_cli.decoding.verification import Coupled, Verdict
from hsd_cli.doctor import folders, hub, self_test, software
from hsd_cli.doctor.check import Check, Finding, checks_of
from hsd_cli.drafting.protocol import Draft
from hsd_cli.runtime.device import available_devices
from tests.cli import hsd, shell_hsd


def finding(checks: Iterator[Check], name: str) -> Finding:
    return next(check for check in checks if check.name == name).finding()


# The command


def test_a_sound_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_thisisnotforprint")
    result = hsd("doctor", "--json")
    assert (result.code, result.err) == (0, "")
    assert "hf_" not in result.out
    report = json.loads(result.out)
    assert report["broken"] is False
    checks = {check["name"]: check for check in report["checks"]}
    devices = [f"device {name}" for name in available_devices()]
    expected = ["python", "hsd", "torch", "transformers", "tokenizers", "huggingface-hub", *devices, "attention", "hub"]
    expected += ["hub token", "hub cache", "hsd cache", "disk", "configuration", "self-test"]
    assert [name for name in checks if name in expected] == expected
    for name in {*expected} - {"hub", "disk"}:
        assert (checks[name]["state"], checks[name]["remedy"]) == ("ok", None), name
    assert checks["hub token"]["text"] == "there is one"
    assert "float32" in checks["device cpu"]["text"]
    assert "same with and without a drafter" in checks["self-test"]["text"]


def test_a_line_for_each_check_and_exit_code_1_if_something_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "conf\x1b[2Jig.toml"
    config.write_text("seed = -1")
    monkeypatch.setenv("HSD_CONFIG", str(config))
    result = hsd("doctor", "-q")
    assert (result.code, result.err) == (1, "")
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines].count("broken") == 1
    assert {line.split()[0] for line in lines} <= {"ok", "warning", "broken"}
    line = next(line for line in lines if line.startswith("broken"))
    assert line.split()[:2] == ["broken", "configuration"]
    assert line.endswith("seed: input should be greater than or equal to 0")
    assert "\x1b" not in result.out


def test_a_library_that_cannot_be_loaded_hides_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libtorch.so: no such file')")
    result = shell_hsd("doctor", PYTHONPATH=str(tmp_path), HF_HUB_OFFLINE="1")
    assert (result.code, result.err) == (1, "")
    states = {line[9:26].strip(): (line.split()[0], line[26:]) for line in result.out.splitlines()}
    assert states["torch"][0] == "broken"
    assert states["torch"][1].startswith("cannot be imported: libtorch.so: no such file; run: pip install --upgrade ")
    assert states["machine"] == states["self-test"] == ("broken", "OSError: libtorch.so: no such file")
    assert states["hub"] == (
        "warning",
        "offline mode: what is downloaded still works; to download, unset HF_HUB_OFFLINE",
    )
    assert [states[name][0] for name in ("python", "rich", "hub cache", "configuration")] == ["ok"] * 4


# Its parts


def test_every_required_library_is_looked_at_and_none_of_development() -> None:
    names = [check.name for check in software.software()]
    assert {"typer", "torch", "tomlkit"} <= set(names)
    assert not {"pytest", "ruff"} & set(names)


def test_an_old_or_missing_library_is_broken() -> None:
    assert software._library(Requirement("rich>=900")) == Finding(
        "broken", f"{version('rich')} is not >=900", "run: pip install --upgrade 'rich>=900'"
    )
    assert software._library(Requirement("no-such-library")) == Finding(
        "broken",
        "cannot be imported: No module named 'no_such_library'",
        "run: pip install --upgrade 'no-such-library'",
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A hub that answers with ``status``, after ``ready``."""
    behaviour: dict[str, Any] = {"status": 200, "ready": Event()}
    behaviour["ready"].set()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            behaviour["ready"].wait()
            self.send_response(behaviour["status"])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            "huggingface_hub.constants.ENDPOINT", f"http://user:secret@127.0.0.1:{listening.server_port}"
        )
        yield behaviour
        behaviour["ready"].set()
        listening.shutdown()


def test_a_hub_that_answers_is_ok_even_if_it_wants_to_know_who_asks(server: dict[str, Any]) -> None:
    for status in (200, 401, 404):
        server["status"] = status
        assert finding(hub.hub(), "hub") == Finding("ok", "127.0.0.1 answers")


def test_a_hub_in_trouble_is_a_warning(server: dict[str, Any]) -> None:
    server["status"] = 503
    found = finding(hub.hub(), "hub")
    assert found.state == "warning"
    assert found.text == "127.0.0.1 cannot be used (it answers 503): what is downloaded still works"


def test_nobody_waits_for_a_hub_that_says_nothing(server: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 0.2)
    server["ready"].clear()
    found = finding(hub.hub(), "hub")
    assert found.state == "warning"
    assert "127.0.0.1 cannot be used (" in found.text
    assert "secret" not in found.text


def test_a_hub_that_is_not_there_is_a_warning(server: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    found = finding(hub.hub(), "hub")
    assert (found.state, found.remedy) == ("warning", "check the network, a proxy, and HF_ENDPOINT")


def test_a_missing_token_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    found = finding(hub.hub(), "hub token")
    assert found == Finding("ok", "none; only gated and private models need one, from `hf auth login`")


def test_folders_have_a_size_and_a_place_to_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hub" / "blobs").mkdir(parents=True)
    (tmp_path / "hub" / "blobs" / "a").write_bytes(bytes(5000))
    (tmp_path / "hub" / "link").symlink_to(tmp_path / "hub" / "blobs" / "a")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    link = (tmp_path / "hub" / "link").lstat().st_size
    assert finding(folders.folders(), "hub cache") == Finding(
        "ok", f"{tmp_path / 'hub'}: {(5000 + link) / 1000:.3g} kB"
    )
    assert finding(folders.folders(), "hsd cache") == Finding("ok", f"{tmp_path / 'cache'}: not there yet")


def test_a_folder_that_cannot_be_made_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HSD_CACHE", str(tmp_path / "file" / "cache"))
    assert finding(folders.folders(), "hsd cache") == Finding(
        "broken",
        f"{tmp_path / 'file' / 'cache'}: nothing can be written",
        "make it writable, or set HSD_CACHE to another folder",
    )


def test_little_room_is_a_warning_with_what_makes_more(monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage("/").free
    monkeypatch.setattr(folders, "LITTLE", free * 100)
    found = finding(folders.folders(), "disk")
    assert found.state == "warning"
    assert "hsd rm" in (found.remedy or "")
    monkeypatch.setattr(folders, "LITTLE", 1)
    assert finding(folders.folders(), "disk").state == "ok"


def test_a_verifier_that_lets_everything_pass_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Coupled.verify

    def careless(rule: Coupled, logits: torch.Tensor, draft: Draft, position: int) -> Verdict:
        own = sound(rule, logits, draft, position).tokens[-1]
        return Verdict(len(draft), [*draft.tokens.tolist(), own], sound=True)

    monkeypatch.setattr(Coupled, "verify", careless)
    assert finding(self_test.self_test(), "self-test") == Finding(
        "broken",
        "the embedded pair writes another text with a drafter",
        "run: hsd verify embedded:target embedded:drafter",
    )


def test_what_cannot_be_looked_at_is_broken_by_its_reason() -> None:
    def section() -> Iterator[Check]:
        raise LookupError("no\nsuch thing")
        yield

    (check,) = checks_of(section)
    assert (check.name, check.finding()) == ("section", Finding("broken", "LookupError: no such thing"))
    assert Check("x", lambda: next(section()).finding()).finding() == Finding("broken", "LookupError: no such thing")
