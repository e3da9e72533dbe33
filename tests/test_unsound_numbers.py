"""Models whose numbers are none: damaged weights, activations that half precision cannot hold. Never endless text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.breadth import breadth
from tests.cli import PAIRS, Result, checkpoint, hsd

TEXT = "bcdefghijklm"
PARTS = {"norm": "model.norm.weight", "head": "lm_head.weight", "layer": "model.layers.0.mlp.up_proj.weight"}
DAMAGE = [("norm", "nan"), ("head", "inf"), ("layer", "inf")]
SETTINGS = {
    "greedy": [],
    "rejection": ["--temperature", "0.1"],
    "coupled": ["--temperature", "0.1", "--seed", "1"],
    "truncated": ["--temperature", "0.1", "--top-k", "5", "--top-p", "0.9", "--min-p", "0.1"],
}
ALGORITHM = pytest.mark.parametrize("algorithm", breadth(["sd", "slem", "slrs", "tli", "union"], quick=["slem", "tli"]))
SETTING = pytest.mark.parametrize("setting", SETTINGS)
TARGET = "hsd: the target's logits are not numbers; "
DRAFTER = "hsd: the drafter failed, so that it goes on without: its logits are not numbers; try --draft-dtype float32\n"


def edited(model: str, part: str, value: float, row: int | None = None) -> str:
    """The checkpoint with ``value`` everywhere in ``part``, or in one row of it."""
    file = Path(model) / "model.safetensors"
    weights = load_file(file)
    (weights[part] if row is None else weights[part][row]).fill_(value)
    save_file(weights, file, {"format": "pt"})
    return model


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    folder = tmp_path_factory.mktemp("damaged")
    return {
        (part, value): edited(checkpoint(folder / f"{part} {value}"), PARTS[part], float(value))
        for part, value in DAMAGE
    }


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Knows the alphabet in float32. What half precision makes of its numbers, from ``c`` on, is infinite."""
    model = checkpoint(tmp_path_factory.mktemp("wide"))
    file = Path(model) / "model.safetensors"
    weights = load_file(file)
    letter = 1 + "abc".index("c")
    weights["model.layers.0.post_attention_layernorm.weight"].fill_(1)
    for part in ("gate", "up"):  # their product is what overflows
        weights[f"model.layers.0.mlp.{part}_proj.weight"][0, letter] = 400
    save_file(weights, file, {"format": "pt"})
    return model


def generate(*arguments: object) -> Result:
    return hsd("generate", "--no-stats", "-n", len(TEXT), "a", *arguments)


# The target


@SETTING
@pytest.mark.parametrize("damage", DAMAGE, ids=" ".join)
def test_a_damaged_target_is_one_line(
    damaged: dict[tuple[str, str], str], letters: str, setting: str, damage: tuple[str, str]
) -> None:
    for drafting in ([], ["-d", letters, "-a", "slem"]):
        done = generate("-t", damaged[damage], *drafting, *SETTINGS[setting])
        assert done == (1, "", f"{TARGET}download it again\n")


@SETTING
@pytest.mark.parametrize("drafting", [[], ["-d", "-a", "slem"]], ids=" ".join)
def test_half_precision_that_overflows_names_the_remedy(
    wide: str, letters: str, setting: str, drafting: list[str]
) -> None:
    arguments = [
        "-t",
        wide,
        *(item for option in drafting for item in ([option, letters] if option == "-d" else [option])),
    ]
    done = generate(*arguments, *SETTINGS[setting], "--dtype", "float16", "--draft-dtype", "float32")
    assert (done.code, done.err) == (1, f"{TARGET}try --dtype float32\n")
    assert done.out in ("b", "bc")
    assert generate(*arguments, *SETTINGS[setting], "--dtype", "float32") == (0, TEXT, "")


@SETTING
def test_a_record_that_meets_such_numbers_does_not_end_the_batch(wide: str, tmp_path: Path, setting: str) -> None:
    records = tmp_path / "in.jsonl"
    records.write_text('{"prompt": "a"}\n{"prompt": "d"}\n{"prompt": "bc"}\n{"prompt": "k"}\n')
    done = hsd("generate", "-q", "-t", wide, "--dtype", "float16", "-n", 4, "-i", records, *SETTINGS[setting])
    results = [json.loads(line) for line in done.out.splitlines()]
    error = f"{TARGET.removeprefix('hsd: ')}try --dtype float32"
    assert [result.get("error") for result in results] == [error, None, error, None]
    assert [result.get("text") for result in results] == [None, "efgh", None, "lmno"]
    assert (done.code, done.err) == (1, f"hsd: 2 of 4 records failed; the first, in line 1: {error}\n")


# The drafter


@SETTING
@ALGORITHM
def test_a_damaged_drafter_is_gone_without_and_that_is_said(
    damaged: dict[tuple[str, str], str], letters: str, algorithm: str, setting: str
) -> None:
    arguments = ["-t", letters, "-d", damaged["norm", "nan"], "-a", algorithm, *SETTINGS[setting]]
    assert generate(*arguments) == (0, TEXT, DRAFTER)


@ALGORITHM
def test_it_is_an_error_with_strict(damaged: dict[tuple[str, str], str], letters: str, algorithm: str) -> None:
    done = generate("-t", letters, "-d", damaged["head", "inf"], "-a", algorithm, "--strict", "--json")
    assert done == (1, "", "hsd: the drafter failed: its logits are not numbers; try --draft-dtype float32\n")


@SETTING
@ALGORITHM
def test_a_drafter_that_overflows_in_mid_text_is_gone_without(
    wide: str, letters: str, algorithm: str, setting: str
) -> None:
    arguments = ["-t", letters, "-d", wide, "-a", algorithm, "--lookahead", 3, *SETTINGS[setting]]
    assert generate(*arguments, "--draft-dtype", "float16") == (0, TEXT, DRAFTER)
    assert generate(*arguments) == (0, TEXT, "")


def test_a_batch_goes_on_without_it_and_says_so_once(damaged: dict[tuple[str, str], str], tmp_path: Path) -> None:
    pairs = edited(checkpoint(tmp_path / "pairs", PAIRS), PARTS["norm"], float("nan"))
    target = checkpoint(tmp_path / "target")
    records = tmp_path / "in.jsonl"
    records.write_text('{"prompt": "a"}\n' * 3)
    options = ["generate", "--no-stats", "-t", target, "-d", pairs, "-a", "slem", "-n", 12, "-i", records]
    done = hsd(*options)
    assert (done.code, done.err) == (0, DRAFTER)
    assert [json.loads(line)["text"] for line in done.out.splitlines()] == [TEXT] * 3
    strict = [json.loads(line) for line in hsd(*options, "--strict").out.splitlines()]
    assert {result["error"] for result in strict} == {
        "the drafter failed: its logits are not numbers; try --draft-dtype float32"
    }


def test_a_token_that_is_not_written_costs_nothing(letters: str, tmp_path: Path) -> None:
    """The drafter alone would go on with the letter whose numbers are none."""
    late = edited(checkpoint(tmp_path), "model.embed_tokens.weight", float("nan"), row=1 + "abcdefgh".index("h"))
    assert generate("-t", late, "-d", letters, "-a", "slem", "-n", 3, "--lookahead", 3) == (0, "bcd", "")
