"""What a model writes and what files are called gets no say over pages and folders; secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.breadth import thorough
from tests.cli import checkpoint, hsd, shell_hsd

ATTACK = "</script><img src=x onerror=alert(1)>"


def test_a_page_about_a_run_shows_markup_and_holds_none_of_it(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", ["a", ATTACK, "b"])
    page = tmp_path / "run.html"
    result = hsd("generate", "-q", "-t", model, "-n", 3, "--report", page, ATTACK)
    assert (result.code, result.out) == (0, f"ba{ATTACK}")
    html = page.read_text()
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html


@pytest.mark.parametrize("absolute", [False, True])
def test_results_stay_in_the_folder_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool
) -> None:
    model = checkpoint(tmp_path / "model")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "notes.txt").write_text("a")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    name = tmp_path / "notes.txt" if absolute else Path("../notes.txt")
    result = hsd("generate", "-q", "-t", model, "-n", 1, "-f", name, "--output-dir", "out")
    assert (result.code, result.err) == (0, "")
    (written,) = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert written.is_relative_to(tmp_path / "work" / "out")


@thorough
def test_a_traceback_tells_no_token(tmp_path: Path) -> None:
    model = checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    result = shell_hsd("generate", "--debug", "-t", model, "a", HF_TOKEN="hf_verysecret")
    assert result.code != 0
    assert "Traceback" in result.err
    assert "verysecret" not in result.out + result.err
