"""Files of models that are damaged, cut off or of another kind: one line, and never a text that is not the model's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import LETTERS, checkpoint, hsd
from tests.test_caches_between_texts import TEMPLATE

DESCRIPTIONS = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
TEXT = "bcdefghi"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its texts end where the generation configuration says so."""
    folder = tmp_path_factory.mktemp("whole")
    return checkpoint(folder, [*LETTERS, "<end>"], special=["<end>"], chat_template=TEMPLATE)


@pytest.fixture
def copy(whole: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def assert_refused(model: Path, *command: str) -> None:
    done = hsd(*(command or ("generate", "-n", 8, "--raw", "a", "-t")), model)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("hsd: ")
    assert done.err.count("\n") == 1
    assert "HSD_DEBUG" not in done.err
    assert str(model) in done.err


@pytest.mark.parametrize("name", DESCRIPTIONS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:1],
        lambda data: data[: len(data) // 2],
        lambda data: data.rstrip()[:-1],
        lambda data: b"null",
        lambda data: b"[]",
        lambda data: b"3",
        lambda data: b"\xff\xfe" + data,
        lambda data: b"\0" * len(data),
        lambda data: b"[" * 100_000,
    ],
    ids=["empty", "begun", "half", "not ended", "null", "list", "number", "no text", "zeros", "brackets"],
)
def test_a_damaged_description_is_refused(copy: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    file = copy / name
    file.write_bytes(damage(file.read_bytes()))
    assert_refused(copy)


def test_a_value_that_cannot_be_is_named_with_the_reason(copy: Path) -> None:
    content = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(content | {"head_dim": "wide"}))
    done = hsd("generate", "-t", copy, "a")
    assert "Field 'head_dim' expected int, got str" in done.err


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_what_a_plan_reads_of_it_is_refused_there(copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:50])
    assert_refused(copy, "plan", "embedded:target")
    assert_refused(copy, "vocab-diff", "embedded:target")


@pytest.mark.parametrize("kept", [0, 4, 8, 60, 1 / 2, -1])
def test_weights_that_are_cut_off_are_refused(copy: Path, kept: float) -> None:
    file = copy / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
    assert_refused(copy)


@pytest.mark.parametrize(
    ("before", "after"),
    [(b'"F32"', b'"F64"'), (b"lm_head", b"lm_hand"), (b'{"', b"{{"), (b"model.norm", b"model.n\xffrm")],
    ids=["other numbers", "other names", "no JSON", "no text"],
)
def test_weights_with_another_header_are_refused(copy: Path, before: bytes, after: bytes) -> None:
    file = copy / "model.safetensors"
    data = file.read_bytes()
    assert before in data
    file.write_bytes(data.replace(before, after))
    assert_refused(copy)


def test_an_index_of_weights_that_is_damaged_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model-00001-of-00001.safetensors")
    for content in (b"", b"{", b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": {"lm_head.weight": "none"}}'):
        (copy / "model.safetensors.index.json").write_bytes(content)
        assert_refused(copy)


def test_a_description_of_another_version_is_read(copy: Path) -> None:
    for name in DESCRIPTIONS[:2]:
        content = json.loads((copy / name).read_text())
        content |= {"transformers_version": "99.0.0", "of_the_future": {"a": [1]}}
        (copy / name).write_text(json.dumps(content))
    assert hsd("generate", "-q", "-t", copy, "-n", 8, "--raw", "a") == (0, TEXT, "")
    ended = json.loads(hsd("generate", "-t", copy, "--json", "--raw", "x").out)
    assert (ended["text"], ended["finish_reason"]) == ("yz\n", "eos")
