"""Checkpoints whose tokenizer has more tokens than the model has embeddings: a token was added, its row was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli import LETTERS, PAIRS, checkpoint, hsd
from tests.serving import Server

ROWS = len(LETTERS) + 1
TEXT = "defghijk"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def with_more_tokens(folder: str) -> str:
    """The checkpoint with ``<tool>`` and a special ``<user>`` just past its rows."""
    path = Path(folder, "tokenizer.json")
    tokenizer = json.loads(path.read_text())
    rows = json.loads(Path(folder, "config.json").read_text())["vocab_size"]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"] += [
        {"id": rows, "content": "<tool>", "special": False, **plain},
        {"id": rows + 1, "content": "<user>", "special": True, **plain},
    ]
    path.write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    return with_more_tokens(checkpoint(tmp_path_factory.mktemp("target"), chat_template=TEMPLATE))


@pytest.fixture(scope="module")
def drafter(tmp_path_factory: pytest.TempPathFactory) -> str:
    return with_more_tokens(checkpoint(tmp_path_factory.mktemp("drafter"), PAIRS))


@pytest.mark.parametrize(("token", "index"), [("<tool>", ROWS), ("<user>", ROWS + 1)])
def test_one_line_names_the_token_and_both_sizes(target: str, token: str, index: int) -> None:
    result = hsd("generate", "--raw", "-t", target, f"ab{token}c")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"hsd: the token '{token}' has the id {index}, but the model's embeddings have {ROWS} rows (ids up to "
        f"{ROWS - 1}); take it out of the text, or get the weights that belong to this tokenizer\n"
    )


@pytest.mark.parametrize("size", [1, 2])
def test_of_a_batch_it_is_an_error_of_that_record(target: str, size: int, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    records = [{"id": "good", "prompt": "abc"}, {"id": "bad", "prompt": "<tool>abc"}, {"id": "next", "prompt": "abc"}]
    source.write_text("\n".join(map(json.dumps, records)))
    result = hsd("generate", "--raw", "-q", "-n", 8, "-t", target, "-i", source, "--batch-size", size)
    found = {each["id"]: each.get("text", each.get("error")) for each in map(json.loads, result.out.splitlines())}
    assert result.code == 1
    assert found["good"] == found["next"] == TEXT
    assert "'<tool>' has the id 28" in found["bad"]


def test_a_server_refuses_that_request_and_goes_on_with_others(target: str) -> None:
    def asked(text: str) -> tuple[int, str]:
        body = {"model": server.model, "max_tokens": 8, "messages": [{"role": "user", "content": text}]}
        answer = server.post("/v1/chat/completions", body)
        return answer.status_code, answer.text

    with Server("-t", target, "--batch-size", 2, fork=True) as server:
        assert asked("abc")[0] == 200
        status, message = asked("ab<tool>c")
        assert (status, "'<tool>' has the id 28" in message) == (400, True)
        status, message = asked("abc")
        assert (status, json.loads(message)["choices"][0]["message"]["content"]) == (200, TEXT)


@pytest.mark.parametrize("algorithm", ["slem", "slrs", "tli", "union", "auto"])
def test_a_drafter_never_stops_the_target(letters: str, drafter: str, algorithm: str) -> None:
    command = ["generate", "--no-stats", "--raw", "-n", 8, "-t", letters, "-d", drafter, "-a", algorithm]
    assert hsd(*command, "abc") == (0, TEXT, "")
    lost = hsd(*command, "<tool>abc")
    assert (lost.code, lost.out) == (0, TEXT)
    assert hsd(*command, "--strict", "<tool>abc").code == 1


@pytest.mark.parametrize("algorithm", ["slem", "slrs", "tli", "union"])
def test_such_a_token_is_plain_text_where_a_drafter_reads_what_was_written(
    drafter: str, algorithm: str, tmp_path: Path
) -> None:
    tool = [*LETTERS[:2], "<", "tool", ">", *LETTERS[2:]]  # the target writes its name, in tokens of its own
    target = checkpoint(tmp_path, tool)
    result = hsd("generate", "--json", "--raw", "-n", 12, "-t", target, "-d", drafter, "-a", algorithm, "a")
    assert result.code == 0
    found = json.loads(result.out)
    assert (found["text"], found["drafter_failure"]) == ("b<tool>cdefghij", None)
    assert found["accepted"] > 0
