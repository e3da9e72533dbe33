"""Where a text ends: at special tokens that are named, at ends that the user knows better, before a checkpoint's own
stop strings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.cli import checkpoint, hsd
from tests.serving import Server
from tests.test_heads_and_ends import change

TOKENS = ["a", "b", "<turn>", "c", "d", "<end>", "e", "f"]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Writes the letters, and special tokens among them that its configuration takes for no end."""
    name = checkpoint(tmp_path_factory.mktemp("model"), TOKENS, special=["<turn>", "<end>"], chat_template=TEMPLATE)
    for file in ("config.json", "generation_config.json"):
        change(Path(name, file), eos_token_id=None)
    return name


def written(model: str, *options: object, prompt: str = "a") -> tuple[str, str, list[int]]:
    result = hsd("generate", "--json", "--raw", "-n", 10, "-t", model, *options, prompt)
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    return found["text"], found["finish_reason"], found["token_ids"]


@pytest.mark.parametrize("algorithm", ["ar", "sd", "slem", "slrs", "tli"])
def test_a_stop_string_that_is_a_special_tokens_name_means_the_token(model: str, algorithm: str) -> None:
    drafting = ["-d", model, "-a", algorithm]
    assert written(model, *drafting)[0] == "bcdefab"
    assert written(model, *drafting, "--stop", "<end>") == ("bcd", "stop", [2, 3, 4, 5, 6])
    assert written(model, *drafting, "--stop", "<end>", "--stop", "<turn>") == ("b", "stop", [2, 3])
    assert written(model, *drafting, "--stop", "bc", "--stop", "d") == ("", "stop", [2, 3, 4])


def test_what_was_held_back_for_another_stop_string_is_written_before_the_token(model: str) -> None:
    assert written(model, "--stop", "bx", "--stop", "<turn>")[0] == "b"


def test_a_chat_a_record_and_a_request_have_the_same_stops(model: str, tmp_path: Path) -> None:
    chat = hsd("chat", "-q", "-t", model, "--stop", "<end>", stdin=b"a\n/set stop <turn>\na\n")
    assert (chat.code, chat.out.split()) == (0, ["bcd", "b"])
    records = tmp_path / "in.jsonl"
    records.write_text('{"prompt": "a", "stop": "<end>"}\n{"prompt": "a", "stop": ["<turn>"]}\n')
    batch = hsd("generate", "-q", "--raw", "-n", 10, "-t", model, "-i", records)
    assert [json.loads(line)["text"] for line in batch.out.splitlines()] == ["bcd", "b"]
    with Server("-t", model, "--eos", "<end>", fork=True) as server:
        for stop, text in ((None, "bcd"), ("<turn>", "b")):
            asked = {"model": model, "prompt": "a", "temperature": 0, "stop": stop}
            [choice] = server.post("/v1/completions", asked).json()["choices"]
            assert (choice["text"], choice["finish_reason"]) == (text, "stop")


@pytest.mark.parametrize("algorithm", ["ar", "sd", "slem", "slrs", "tli"])
def test_the_ends_that_are_given_take_the_place_of_the_checkpoints(model: str, algorithm: str) -> None:
    drafting = ["-d", model, "-a", algorithm]
    assert written(model, *drafting, "--eos", "<end>") == ("bcd", "eos", [2, 3, 4, 5, 6])
    assert written(model, *drafting, "--eos", "6") == ("bcd", "eos", [2, 3, 4, 5, 6])
    assert written(model, *drafting, "--eos", "<end>", "--eos", "<turn>") == ("b", "eos", [2, 3])


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("<ned>", "'<ned>'; did you mean '<end>' or '<turn>'?"),
        ("9999", "9999; the last one is 8"),
        ("@", "'@'; look for it in its tokenizer.json"),
    ],
)
def test_an_unknown_end_is_a_usage_error(model: str, given: str, hint: str) -> None:
    result = hsd("generate", "-t", model, "--eos", given, "a")
    assert (result.code, result.out, result.err) == (2, "", f"hsd: '{model}' has no token {hint}\n")


def test_ends_can_be_configured(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSD_CONFIG", str(tmp_path / "config.toml"))
    assert hsd("config", "set", "pairs.mended.eos", "<end>").code == 0
    assert hsd("config", "set", "eos", "<turn>").code == 0
    assert "eos               <turn>  (file)\n" in hsd("config", "list").out
    assert written(model, "--pair", "mended")[0] == "bcd"
    assert written(model)[0] == "b"
    monkeypatch.setenv("HSD_EOS", "<end> 3")
    assert "eos               <end> 3  (HSD_EOS)\n" in hsd("config", "list").out
    assert written(model)[0] == "b"
    (tmp_path / "config.toml").write_text('eos = "<end>"\n')
    assert "eos: '<end>' should be ['<end>']" in hsd("generate", "-t", model, "a").err


def test_results_with_other_ends_are_of_another_run(model: str, tmp_path: Path) -> None:
    records, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    records.write_text('{"prompt": "a"}\n')
    command = ["generate", "-q", "--raw", "-n", 10, "-t", model, "-i", records, "-o", out]
    assert hsd(*command, "--eos", "<end>").code == 0
    assert hsd(*command, "--eos", "<end>").code == 0
    assert "has record 1 with another prompt or other options" in hsd(*command, "--eos", "<turn>").err


@pytest.mark.parametrize("stops", ["cd", ["x", "cd"]], ids=str)
def test_a_checkpoints_own_stop_strings_are_heeded(stops: object, tmp_path: Path) -> None:
    name = checkpoint(tmp_path, list("abcdef"))
    change(tmp_path / "generation_config.json", stop_strings=stops)
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    inputs = tokenizer("a", return_tensors="pt")
    ids = theirs.generate(**inputs, tokenizer=tokenizer, max_new_tokens=10, do_sample=False)[0, 1:].tolist()
    assert written(name) == ("b", "stop", ids)
    assert written(name, "--stop", "b") == ("", "stop", ids[:1])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [({"eos_token_id": ["6"]}, "has ['6'] for eos_token_id"), ({"stop_strings": [1, "x"]}, "has [1, 'x'] for stop")],
    ids=str,
)
def test_ends_that_can_be_none_are_one_line(wrong: dict[str, object], sentence: str, tmp_path: Path) -> None:
    name = checkpoint(tmp_path)
    change(tmp_path / "generation_config.json", **wrong)
    result = hsd("generate", "-t", name, "a")
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert sentence in result.err
