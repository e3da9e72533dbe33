"""``hsd config``, and what the file, the pairs and the environment do to the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import hsd

# A temperature that generate refuses, with its value, tells where the value came from, without a model.
REFUSED = "hsd: --temperature must be 0 (greedy) or at least 1e-5, not {}\n"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("HSD_CONFIG", str(path))
    return path


def shown(*arguments: str) -> str:
    result = hsd("config", *arguments)
    assert (result.code, result.err) == (0, "")
    return result.out


# The command


def test_path_is_where_the_variable_says(config: Path) -> None:
    assert shown("path") == f"{config}\n"
    assert not config.exists()


def test_set_get_unset(config: Path) -> None:
    assert shown("set", "max-new-tokens", "5") == ""
    assert shown("set", "stats", "no") == ""
    assert config.read_text() == "max-new-tokens = 5\nstats = false\n"
    assert shown("get", "max-new-tokens") == "5\n"
    assert json.loads(shown("get", "stats", "--json")) == {"key": "stats", "value": False, "source": "file"}
    assert shown("unset", "max-new-tokens") == ""
    sentence = "hsd: 'max-new-tokens' is not configured; give it a value with `hsd config set max-new-tokens VALUE`\n"
    assert hsd("config", "get", "max-new-tokens") == (1, "", sentence)
    sentence = f"hsd: 'max-new-tokens' is not in {str(config)!r}; `hsd config list` shows what is\n"
    assert hsd("config", "unset", "max-new-tokens") == (1, "", sentence)


def test_a_pair_as_a_whole_has_several_values(config: Path) -> None:
    shown("set", "pairs.x.target", "a/b")
    shown("set", "pairs.x.draft", "c/d")
    sentence = "hsd: 'pairs.x' has several values; get one of pairs.x.target, pairs.x.draft\n"
    assert hsd("config", "get", "pairs.x") == (2, "", sentence)


def test_list_tells_each_value_and_where_it_comes_from(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown("list") == ""
    for key, value in [("target", "a/b"), ("seed", "1"), ("pairs.x.draft", "c/d"), ("pairs.x.seed", "2")]:
        shown("set", key, value)
    shown("set", "pair", "x")
    monkeypatch.setenv("HSD_TARGET", "e/f")
    assert shown("list") == (
        "target         e/f  (HSD_TARGET)\n"
        "seed           2    (pair x)\n"
        "pair           x    (file)\n"
        "draft          c/d  (pair x)\n"
        "pairs.x.draft  c/d  (file)\n"
        "pairs.x.seed   2    (file)\n"
    )
    listed = json.loads(shown("list", "--json"))
    assert listed["path"] == str(config)
    assert listed["settings"]["target"] == {"value": "e/f", "source": "HSD_TARGET"}
    assert listed["settings"]["pairs.x.seed"] == {"value": 2, "source": "file"}
    assert shown("get", "target") == "e/f\n"
    assert shown("get", "draft") == "c/d\n"
    assert shown("get", "pairs.x.seed") == "2\n"


def test_values_cannot_control_the_terminal() -> None:
    shown("set", "system", "a\x1b[2J")
    assert shown("get", "system") == "a\\x1b[2J\n"
    assert "\x1b" not in shown("list")


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("temprature", "1", "unknown key 'temprature'; did you mean 'temperature'?"),
        ("pairs.x.targt", "1", "unknown key 'pairs.x.targt'; did you mean 'pairs.x.target'?"),
        ("max-new-tokens", "0", "max-new-tokens: input should be greater than or equal to 1"),
        (
            "max-new-tokens",
            "x",
            "max-new-tokens: input should be a valid integer, unable to parse string as an integer",
        ),
        ("top-p", "0", "top-p must be above 0 and at most 1 (off), not 0.0"),
        ("pairs.x.min-p", "2", "pairs.x.min-p must be from 0 (off) to 1, not 2.0"),
        ("temperature", "nan", "temperature must be 0 (greedy) or at least 1e-5, not nan"),
        ("pairs.x.dtype", "int3", "pairs.x.dtype: 'int3' is not one of 'auto', 'float32', 'bfloat16', 'float16'"),
        ("stats", "perhaps", "stats: input should be a valid boolean, unable to interpret input"),
        ("pair", "x", "no pair 'x' in the file yet; begin with `hsd config set pairs.x.target MODEL`"),
    ],
)
def test_set_refuses_what_the_option_would_refuse(config: Path, key: str, value: str, sentence: str) -> None:
    assert hsd("config", "set", key, value) == (2, "", f"hsd: {sentence}\n")
    assert not config.exists()


def test_a_pair_chooses_no_other_pair() -> None:
    result = hsd("config", "set", "pairs.x.pair", "y")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("hsd: unknown key 'pairs.x.pair'; ")


def test_an_unknown_key_that_resembles_none_lists_all() -> None:
    result = hsd("config", "get", "xyzzy")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("hsd: unknown key 'xyzzy'; there are target, draft, ")


# What is wrong in the file


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("temprature = 1", "unknown key 'temprature'; did you mean 'temperature'?"),
        ('temperature = "1"', "temperature: '1' should be 1.0"),
        ('seed = "x"', "seed: input should be a valid integer, unable to parse string as an integer"),
        ("target = 1", "target: 1 should be '1'"),
        ("stats = 1", "stats: 1 should be True"),
        ("pair = 1", "pair: 1 should be '1'"),
        ('pair = "x"', "pair: no pair 'x'; there are none yet; make one with `hsd config set pairs.NAME.target MODEL`"),
        ("[pairs.x]\nseed = -1", "pairs.x.seed: input should be greater than or equal to 0"),
        ("[seed]\na = 1", "seed: input should be a valid integer"),
    ],
)
@pytest.mark.parametrize("command", [["generate", "x"], ["config", "list"], ["config", "get", "draft"]], ids=" ".join)
def test_a_wrong_value_names_file_and_key(config: Path, command: list[str], text: str, sentence: str) -> None:
    config.write_text(text)
    assert hsd(*command) == (2, "", f"hsd: {str(config)!r}: {sentence}\n")


def test_a_wrong_value_can_be_corrected(config: Path) -> None:
    config.write_text("seed = -1\ntemprature = 1\n")
    shown("set", "seed", "1")
    shown("unset", "temprature")
    assert config.read_text() == "seed = 1\n"
    assert shown("get", "seed") == "1\n"


def test_a_damaged_file_is_named_and_its_path_and_all_help_still_shown(config: Path) -> None:
    config.write_text("seed =")
    for command in (["generate", "x"], ["config", "list"], ["config", "set", "seed", "1"], ["config", "unset", "seed"]):
        result = hsd(*command)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"hsd: {str(config)!r} is not valid TOML: ")
    assert shown("path") == f"{config}\n"
    assert hsd("generate", "--help").code == 0
    assert hsd("vocab-diff", "embedded:target", "embedded:target", "--json").code == 0  # none of its options is there


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSD_SEED", "x")
    result = hsd("config", "list")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("hsd: HSD_SEED: seed: input should be a valid integer")


# Precedence


def refused_temperature(*arguments: str) -> str:
    result = hsd("generate", "x", *arguments)
    assert (result.code, result.out) == (2, "")
    return result.err


def test_flag_then_named_pair_then_environment_then_default_pair_then_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("temperature = -1")
    assert refused_temperature() == REFUSED.format("-1.0")
    config.write_text('pair = "a"\ntemperature = -1\n[pairs.a]\ntemperature = -2\n[pairs.b]\ntemperature = -3\n')
    assert refused_temperature() == REFUSED.format("-2.0")
    monkeypatch.setenv("HSD_PAIR", "b")
    assert refused_temperature() == REFUSED.format("-3.0")
    monkeypatch.setenv("HSD_TEMPERATURE", "-4")
    assert refused_temperature() == REFUSED.format("-4.0")
    assert refused_temperature("--pair", "a") == REFUSED.format("-2.0")
    assert refused_temperature("--pair", "a", "--temperature", "-5") == REFUSED.format("-5.0")
    assert refused_temperature("--temperature", "-5", "--pair", "a") == REFUSED.format("-5.0")


def test_a_pair_leaves_what_it_does_not_say_to_environment_and_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("temperature = -1\n[pairs.a]\nseed = 1\n")
    assert refused_temperature("--pair", "a") == REFUSED.format("-1.0")
    monkeypatch.setenv("HSD_TEMPERATURE", "-4")
    assert refused_temperature("--pair", "a") == REFUSED.format("-4.0")


def test_an_unknown_pair_names_who_named_it_and_those_that_there_are(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = "there are none yet; make one with `hsd config set pairs.NAME.target MODEL`"
    assert hsd("generate", "x", "--pair", "c") == (2, "", f"hsd: --pair: no pair 'c'; {none}\n")
    config.write_text("[pairs.a]\nseed = 1\n[pairs.b]\nseed = 1\n")
    assert hsd("generate", "x", "--pair", "c") == (2, "", "hsd: --pair: no pair 'c'; there are 'a', 'b'\n")
    monkeypatch.setenv("HSD_PAIR", "d")
    assert hsd("generate", "x") == (2, "", "hsd: HSD_PAIR: no pair 'd'; there are 'a', 'b'\n")


def test_a_pair_generates_with_its_models() -> None:
    for key, value in [("target", "embedded:target"), ("draft", "embedded:twin"), ("algorithm", "sd")]:
        shown("set", f"pairs.twins.{key}", value)
    shown("set", "max-new-tokens", "3")
    result = hsd("generate", "--pair", "twins", "--json", "import os")
    assert (result.code, result.err) == (0, "")
    report = json.loads(result.out)
    assert (report["algorithm"], len(report["token_ids"])) == ("sd", 3)
    assert (report["target"]["id"], report["draft"]["id"]) == ("embedded:target", "embedded:twin")


# Cost


def test_nothing_is_parsed_where_there_is_no_file_and_nothing_heavy_where_there_is(config: Path) -> None:
    watched = """
import sys
from hsd_cli.app import main
sys.argv = ["hsd", *sys.argv[1:]]
try:
    main()
except SystemExit:
    print([name for name in ("tomlkit", "torch", "huggingface_hub") if name in sys.modules])
"""

    def loaded(*arguments: str) -> str:
        command = [sys.executable, "-c", watched, *arguments]
        return subprocess.run(command, input="", capture_output=True, text=True, check=True).stdout.splitlines()[-1]

    assert loaded("generate", "") == "[]"
    config.write_text("seed = 1")
    assert loaded("generate", "") == "['tomlkit']"
    assert loaded("--version") == "[]"
    assert loaded("generate", "--help") == "[]"
    assert loaded("config", "get", "seed") == "['tomlkit']"
