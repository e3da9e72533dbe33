"""Models whose angles are others in long texts: one that is long from the start is served, and none changes in its
middle in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from hsd_cli.runtime.context import context_size_of, why_no_longer
from hsd_cli.runtime.loading import load_model
from hsd_cli.runtime.model import CachedModel
from tests.architectures import RESCALED, RESCALED_FROM, random_model
from tests.cli import LETTERS, checkpoint, hsd
from tests.test_heads_and_ends import change

LONG = [name for name in RESCALED if "long rope" in name]
REASON = ", beyond which LongRoPE turns everything before by other angles (prompts that are longer are served)"


def ids(count: int, seed: int = 0) -> list[int]:
    return torch.randint(0, 250, (count,), generator=torch.Generator().manual_seed(seed)).tolist()  # type: ignore[no-any-return]


@torch.inference_mode()
def read_at_once(model: PreTrainedModel, text: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([text]), use_cache=False).logits[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("parts", [[100], [99, 1], [10, 80, 4, 3, 3]], ids=str)
def test_a_text_that_is_long_from_the_start_is_read_as_the_library_reads_it_at_once(
    name: str, parts: list[int]
) -> None:
    theirs, text = random_model(RESCALED[name]), ids(100)
    ours = CachedModel(random_model(RESCALED[name]), 100)
    ours.begin(text)
    assert ours.context_size == RESCALED[name].max_position_embeddings
    found = torch.cat([ours.run(part) for part in torch.tensor(text).split(parts)])
    expected = read_at_once(theirs, text)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
    assert not torch.allclose(found[:RESCALED_FROM], read_at_once(theirs, text[:RESCALED_FROM]), rtol=1e-2)


@pytest.mark.parametrize("name", LONG)
def test_what_was_read_with_other_angles_is_read_again(name: str) -> None:
    theirs, text = random_model(RESCALED[name]), ids(100)
    ours = CachedModel(random_model(RESCALED[name]), 100)
    for count in (60, 100, 90, 50):  # short, long, long again, short
        ours.begin(text[:count])
        assert ours.length == (89 if count == 90 else 0)
        longest = RESCALED[name].max_position_embeddings
        assert ours.context_size == (RESCALED_FROM if count <= RESCALED_FROM else longest)
        unread = torch.tensor(text[ours.length : count])
        found, expected = ours.run(unread), read_at_once(theirs, text[:count])[-len(unread) :]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Continues the alphabet; short texts hold 64 tokens, long ones 300."""
    folder = tmp_path_factory.mktemp("model")
    name = checkpoint(folder, context=300)
    scaling = {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0], "long_factor": [4.0],
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    change(folder / "config.json", rope_parameters=scaling, original_max_position_embeddings=64)
    return name


ALPHABET = "".join(LETTERS) * 20


@pytest.mark.parametrize("options", [["-a", "ar"], ["-d", "{model}", "-a", "sd"], ["-d", "{model}", "-a", "slem"]])
def test_a_long_prompt_is_served(model: str, options: list[str]) -> None:
    options = [option.format(model=model) for option in options]
    result = hsd("generate", "--json", "--raw", "-n", 20, "-t", model, *options, ALPHABET[:240])
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["text"] == ALPHABET[240:260]


@pytest.mark.parametrize("size", [1, 3])
def test_long_and_short_ones_side_by_side(model: str, size: int, tmp_path: Path) -> None:
    lengths = [20, 240, 65, 30, 100]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"prompt": ALPHABET[:length], "id": length}) + "\n" for length in lengths))
    result = hsd("generate", "-q", "--raw", "-n", 10, "-t", model, "-i", source, "--batch-size", size)
    found = {each["id"]: each["text"] for each in map(json.loads, result.out.splitlines())}
    assert found == {length: ALPHABET[length : length + 10] for length in lengths}


def test_a_text_ends_where_its_angles_would_change_and_that_is_said(model: str) -> None:
    result = hsd("generate", "--no-stats", "--raw", "-n", 100, "-t", model, ALPHABET[:50])
    assert result == (0, ALPHABET[50:64], f"hsd: the text ends at 64 tokens{REASON}\n")
    found = json.loads(hsd("generate", "--json", "-q", "--raw", "-n", 100, "-t", model, ALPHABET[:50]).out)
    assert found["finish_reason"] == "context"


def test_a_prompt_without_room_for_a_token_is_told_why(model: str) -> None:
    result = hsd("generate", "--raw", "-t", model, ALPHABET[:64])
    message = f"the prompt has 64 tokens and the target's context holds 64{REASON}; shorten it"
    assert (result.code, result.out, result.err) == (1, "", f"hsd: {message}\n")


def test_dynamic_rope_changes_with_each_position_so_that_no_text_is_longer() -> None:
    config = RESCALED["llama with dynamic rope"]
    assert context_size_of(config) == context_size_of(config, 100) == RESCALED_FROM
    reason = ", beyond which dynamic RoPE turns everything before by other angles"
    assert why_no_longer(config, RESCALED_FROM) == reason


def test_a_long_text_is_the_librarys_own_token_for_token(tmp_path: Path) -> None:
    random_model(RESCALED["phi3 with long rope"]).save_pretrained(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    text = ids(80)
    for _ in range(16):
        text.append(int(read_at_once(theirs, text)[-1].argmax()))
    assert len(set(text[80:])) > 4
    ours = load_model(str(tmp_path), "cpu", "float32").cached(100)
    found = text[:80]
    ours.begin(found)
    logits = ours.prefill(found)
    for _ in range(16):
        found.append(int(logits.argmax()))
        logits = ours.prefill(found[-1:])
    assert found == text
