"""Checkpoints whose heads are tied or padded, and whose texts end in several ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.breadth import breadth
from tests.cli import LETTERS, PAIRS, checkpoint, hsd

DRAFTING = ["sd", "slem", "slrs", "tli", "union", "auto"]
ENDS = ["a", "b", "</s>", "x", "y", "<end>"]
OTHER_ENDS = ["<fin>", "x", "y", "<eot>", "a", "b"]  # after which come the same letters, under other numbers


def written(target: str, drafter: str, algorithm: str, prompt: str, tokens: int = 12) -> dict[str, Any]:
    result = hsd("generate", "--json", "-t", target, "-d", drafter, "-a", algorithm, "-n", tokens, prompt)
    assert (result.code, result.err) == (0, "")
    return json.loads(result.out)  # type: ignore[no-any-return]


def generated(folder: str, *ids: int, tokens: int = 12) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    start = torch.tensor([ids])
    text = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=tokens, do_sample=False)
    return text[0, len(ids) :].tolist()  # type: ignore[no-any-return]


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def ending(folder: Path, tokens: list[str], *, in_config: Any, in_generation_config: Any) -> str:
    name = checkpoint(folder, tokens, special=[token for token in tokens if token.startswith("<")])
    change(folder / "config.json", eos_token_id=in_config)
    if in_generation_config is None:
        (folder / "generation_config.json").unlink()
    else:
        change(folder / "generation_config.json", eos_token_id=in_generation_config)
    return name


@pytest.mark.parametrize("algorithm", breadth(["ar", *DRAFTING[1:]], quick=["ar", "slrs", "auto"]))
@pytest.mark.parametrize(
    ("in_config", "in_generation_config"), [([3, 6], [3, 6]), ([3, 6], None), (3, [3, 6])], ids=str
)
def test_each_end_of_a_list_ends_the_text(
    in_config: Any, in_generation_config: Any, algorithm: str, tmp_path: Path
) -> None:
    target = ending(tmp_path / "t", ENDS, in_config=in_config, in_generation_config=in_generation_config)
    drafter = ending(tmp_path / "d", OTHER_ENDS, in_config=[1, 4], in_generation_config=[1, 4])
    for prompt, ids, text in (("a", [2, 3], "b"), ("x", [5, 6], "y")):
        found = written(target, drafter, algorithm, prompt)
        assert (found["text"], found["token_ids"], found["finish_reason"]) == (text, ids, "eos")
        assert ids == generated(target, ids[0] - 1)
        if algorithm in ("slem", "slrs", "tli", "union"):
            assert found["drafted"] > 0


def test_an_end_that_the_generation_config_leaves_out_is_none(tmp_path: Path) -> None:
    target = ending(tmp_path, ENDS, in_config=[3, 6], in_generation_config=6)
    found = written(target, target, "sd", "a")
    assert found["token_ids"] == generated(target, 1) == [2, 3, 4, 5, 6]
    assert found["accepted"] > 0


def tied(folder: Path) -> str:
    name = checkpoint(folder)
    config = LlamaConfig(
        vocab_size=len(LETTERS) + 1, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(3)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            for part in layer.parameters():
                part.mul_(40 if part.ndim > 1 else 1)
    model.save_pretrained(folder)
    return name


@pytest.mark.parametrize("algorithm", breadth(DRAFTING, quick=["sd", "slrs"]))
def test_a_head_that_is_the_embeddings(algorithm: str, tmp_path: Path) -> None:
    target, other = tied(tmp_path / "tied"), checkpoint(tmp_path / "other", PAIRS)
    expected = generated(target, 1, 2, 3)
    assert len(set(expected)) > 4
    found = written(target, target, algorithm, "abc")
    assert found["token_ids"] == expected
    if algorithm != "auto":  # which looks for earlier text, too
        assert found["accepted"] == found["drafted"] > 0
    foreign = "slem" if algorithm == "sd" else algorithm
    assert written(target, other, foreign, "abc")["token_ids"] == expected
    assert written(other, target, foreign, "abc")["token_ids"] == generated(other, 1, 2)


def test_a_configuration_that_does_not_say_that_the_head_is_the_embeddings(tmp_path: Path) -> None:
    name = tied(tmp_path)
    change(tmp_path / "config.json", tie_word_embeddings=False)
    result = hsd("generate", "-t", name, "abc")
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert 'has no lm_head.weight; if its head is its embeddings, its config.json has to say "tie_word' in result.err


def test_a_tokenizers_truncation_and_padding_are_not_for_prompts(tmp_path: Path) -> None:
    name = checkpoint(tmp_path)
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    fill = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"}
    change(tmp_path / "tokenizer.json", truncation=cut, padding=fill | {"pad_to_multiple_of": None})
    change(tmp_path / "tokenizer_config.json", model_max_length=2)
    result = hsd("generate", "--json", "--raw", "-n", 3, "-t", name, "abcd")
    assert (result.code, result.err) == (0, "")
    assert (json.loads(result.out)["prompt_tokens"], json.loads(result.out)["text"]) == (4, "efg")


def padded(folder: Path, rows: int, after_c: int | None = None) -> str:
    """More rows than the tokenizer has tokens; ``after_c`` is one of them, which stands in the place of "d"."""
    name = checkpoint(folder)
    small = AutoModelForCausalLM.from_pretrained(name)
    tokens, width = small.lm_head.weight.shape
    config = small.config
    config.vocab_size = rows
    model = LlamaForCausalLM(config)
    kept = small.state_dict()
    for part in ("lm_head.weight", "model.embed_tokens.weight"):
        kept[part] = torch.cat([kept[part], torch.zeros(rows - tokens, width)])
    if after_c is not None:
        kept["lm_head.weight"][[4, after_c]] = kept["lm_head.weight"][[after_c, 4]]
        kept["model.embed_tokens.weight"][after_c] = kept["model.embed_tokens.weight"][4]
    model.load_state_dict(kept)
    model.save_pretrained(folder)
    return name


@pytest.mark.parametrize("algorithm", breadth(DRAFTING, quick=["sd", "slrs"]))
@pytest.mark.parametrize(("target_rows", "drafter_rows"), [(64, 28), (28, 64), (64, 128)])
def test_a_head_with_more_rows_than_the_tokenizer_has_tokens(
    target_rows: int, drafter_rows: int, algorithm: str, tmp_path: Path
) -> None:
    target, drafter = padded(tmp_path / "t", target_rows), padded(tmp_path / "d", drafter_rows)
    found = written(target, drafter, algorithm, "abc")
    assert found["token_ids"] == generated(target, 1, 2, 3)
    assert found["text"] == "defghijklmno"
    if algorithm != "auto":
        assert found["accepted"] > 0


@pytest.mark.parametrize("algorithm", breadth(DRAFTING, quick=["sd", "slrs"]))
def test_a_row_without_a_token_is_written_and_drafted_without_harm(algorithm: str, tmp_path: Path) -> None:
    strange, plain = padded(tmp_path / "t", 64, after_c=50), padded(tmp_path / "d", 64)
    assert generated(strange, 1, 2, 3)[:3] == [50, 5, 6]
    found = written(strange, plain, algorithm, "abc")
    assert (found["token_ids"], found["text"][:3]) == (generated(strange, 1, 2, 3), "efg")
    assert written(plain, strange, algorithm, "abc")["text"] == "defghijklmno"
