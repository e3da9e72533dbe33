"""What a checkpoint's generation_config.json recommends is said, where something else runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Result, checkpoint, hsd

INSTRUCT = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
ALL_OF_THEM = "--temperature 0.7 --top-k 20 --top-p 0.8 --repetition-penalty 1.05"


def recommending(folder: Path, **settings: Any) -> str:
    name = checkpoint(folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return name


def written(folder: str, *options: object) -> Result:
    return hsd("generate", "--no-stats", "-t", folder, "-n", 3, "a", *options)


def test_the_notice_has_the_options_to_type(tmp_path: Path) -> None:
    folder = recommending(tmp_path, **INSTRUCT)
    notice = f"hsd: {folder} recommends {ALL_OF_THEM}: add these, or --temperature 0 to stay greedy\n"
    assert written(folder) == (0, "bcd", notice)
    asked = hsd("generate", "--json", "-t", folder, "-n", 3, "a")
    assert asked.err == notice
    assert json.loads(asked.out)["text"] == "bcd"
    assert hsd("chat", "--no-stats", "-t", folder, "-n", 3, stdin=b"a\n").err.count(notice) == 1
    result = written(folder, *ALL_OF_THEM.split())
    assert (result.code, result.err) == (0, "")


def test_of_many_texts_it_is_said_once(tmp_path: Path) -> None:
    folder = recommending(tmp_path / "model", **INSTRUCT)
    records = tmp_path / "records.jsonl"
    records.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert hsd("generate", "--no-stats", "-t", folder, "-n", 3, "-i", records).err.count(ALL_OF_THEM) == 1


@pytest.mark.parametrize("options", [["-q"], ["--temperature", 0], ["--temperature", 1, "--seed", 1], ["--top-k", 3]])
def test_those_who_have_chosen_are_not_told(options: list[object], tmp_path: Path) -> None:
    result = written(recommending(tmp_path, **INSTRUCT), *options)
    assert (result.code, result.err) == (0, "")


def test_a_setting_of_the_configuration_is_a_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = recommending(tmp_path / "model", **INSTRUCT)
    monkeypatch.setenv("HSD_TEMPERATURE", "0")
    assert written(folder).err == ""
    monkeypatch.delenv("HSD_TEMPERATURE")
    monkeypatch.setenv("HSD_CONFIG", str(tmp_path / "config.toml"))
    assert hsd("config", "set", "top-p", "1.0").code == 0
    assert written(folder).err == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, None),
        ({"do_sample": False, "temperature": 0.6, "top_p": 0.9}, None),  # greedy text has no use for them
        ({"temperature": 0.6, "top_p": 0.9}, None),
        ({"do_sample": True}, "recommends --temperature 1:"),
        ({"do_sample": True, "top_k": 0, "top_p": 1.0, "min_p": 0.05}, "recommends --temperature 1 --min-p 0.05:"),
        ({"repetition_penalty": 1.2}, "recommends --repetition-penalty 1.2:"),
        ({"repetition_penalty": 1.0, "num_beams": 1, "suppress_tokens": []}, None),
        ({"no_repeat_ngram_size": 3, "bad_words_ids": [[1]]}, "comes with no_repeat_ngram_size and bad_words_ids, wh"),
        ({"eos_token_id": [3], "max_new_tokens": 9}, None),
    ],
    ids=str,
)
def test_only_what_changes_the_text_is_said(settings: dict[str, Any], said: str | None, tmp_path: Path) -> None:
    result = written(recommending(tmp_path, **settings))
    assert result.code == 0
    assert result.err.count("\n") == (said is not None)
    assert (said or "") in result.err


def test_nothing_but_numbers_is_put_where_people_copy_it(tmp_path: Path) -> None:
    folder = recommending(tmp_path, do_sample=True, temperature=0.5, top_p="0.9; reboot", top_k=[1])
    notice = f"hsd: {folder} recommends --temperature 0.5: add these, or --temperature 0 to stay greedy\n"
    assert written(folder) == (0, "bcd", notice)
