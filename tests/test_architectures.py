"""Real architectures: greedy text equals ``generate``'s token for token, and rolling back leaves no trace."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig

from hsd_cli.errors import HsdError
from hsd_cli.runtime.model import CachedModel
from tests.architectures import (
    BERT_SIZES,
    CONFIGS,
    LAST,
    LIMITED,
    RECURRENT,
    REFUSED,
    RESCALED,
    RESCALED_FROM,
    random_model,
)
from tests.breadth import breadth, thorough
from tests.matrix import (
    EXACT,
    FEWER,
    PAGE,
    PROMPT,
    finding,
    greedy,
    page,
    reference,
    target_model,
    with_itself,
)


@pytest.mark.parametrize("lookahead", [1, 7])
@pytest.mark.parametrize("algorithm", breadth(["ar", "sd", "slem", "tli", "union"], quick=["sd", "tli"]))
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_greedy_text_equals_generate(architecture: str, algorithm: str, lookahead: int) -> None:
    text, statistics = with_itself(architecture, algorithm, lookahead)
    assert text == reference(architecture)
    if algorithm != "ar":  # both ways out of the verifier were taken
        assert 0 < statistics.accepted < statistics.drafted


@pytest.mark.parametrize("algorithm", ["ar", "sd", "slem", "tli"])
@pytest.mark.parametrize("architecture", RESCALED)
def test_text_equals_generates_and_ends_where_the_positions_would_be_rescaled(
    architecture: str, algorithm: str
) -> None:
    text, _ = with_itself(architecture, algorithm, lookahead=4)
    assert text == reference(architecture)[: RESCALED_FROM - len(PROMPT)]


# Of each way to attend, to place tokens, to mix experts, to keep a state, and to see images.
FAMILIES = ["llama", "gemma3", "bloom", "deepseek v3", "gpt-oss", "mamba 2", "jamba", "qwen3.5", "qwen2.5-vl"]


@pytest.mark.parametrize("architecture", breadth(EXACT, quick=FAMILIES))
def test_text_drafts_and_rollback_are_exact(architecture: str) -> None:
    assert len(set(reference(architecture))) > 5  # a text that goes on by itself would prove little
    found = finding(architecture)
    assert (found.target, found.drafter, found.rollback) == ("exact", "exact", "exact")


REASONS = {
    "bert": "bidirectional",
    "roberta": "bidirectional",
    "gemma3 as an encoder": "bidirectional",
    "minimax": "cannot be rolled back",
    "openai-gpt": "does not use the cache",
    "recurrent-gemma": "does not use the cache",
    "paligemma": "bidirectional",
    "rwkv": "cannot be rolled back",
    "xlm": "does not use the cache",
    "t5": "encoder-decoder",
}


@pytest.mark.parametrize("architecture", REFUSED)
def test_models_that_cannot_be_verified_are_refused_before_they_read_a_prompt(architecture: str) -> None:
    with pytest.raises(HsdError, match=REASONS[architecture]):
        CachedModel(target_model(architecture), capacity=8)


@thorough
def test_the_page_of_models_says_what_is_found() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.matrix writes it anew"


@pytest.mark.parametrize("algorithm", ["ar", "lookup", "sd", "slem", "slrs", "tli", "union"])
@pytest.mark.parametrize("architecture", LIMITED)
def test_text_ends_at_the_last_position_and_drafts_before_it(architecture: str, algorithm: str) -> None:
    model, llama = random_model(LIMITED[architecture]), target_model("llama")
    text, _, _ = greedy(CachedModel(model, 8), CachedModel(llama, 8), algorithm, 4)
    ids = torch.tensor([PROMPT])
    expected = model.generate(ids, max_new_tokens=LAST - len(PROMPT), do_sample=False)
    assert text == expected[0, len(PROMPT) :].tolist()
    text, _, drafts = greedy(CachedModel(llama, 8), CachedModel(model, 8), algorithm, 4, FEWER)
    assert text == reference("llama")[:FEWER]
    if algorithm not in ("ar", "lookup"):
        assert drafts[0]
        assert not drafts[-1]


@pytest.mark.parametrize("architecture", RECURRENT)
def test_what_lies_before_every_snapshot_is_read_again(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsd_cli.runtime.recurrent.CHUNK", 16)
    text = [*PROMPT, *reference(architecture)]
    used, fresh = (CachedModel(target_model(architecture), capacity=8) for _ in range(2))
    used.prefill(text)
    used.rollback(40)
    fresh.prefill(text[:40])
    following = torch.tensor([1, 2, 3])
    torch.testing.assert_close(used.run(following), fresh.run(following), rtol=1e-4, atol=1e-4)


def test_rolling_back_copies_nothing() -> None:
    model = CachedModel(target_model("llama"), capacity=64)
    model.prefill(PROMPT)
    before = [layer.keys.data_ptr() for layer in model._cache.layers]
    model.rollback(3)
    model.run(torch.tensor([1, 2]))
    assert [layer.keys.data_ptr() for layer in model._cache.layers] == before


def test_long_prompts_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CachedModel(target_model("gemma3"), capacity=64).prefill(PROMPT)
    monkeypatch.setattr("hsd_cli.runtime.model.PREFILL_CHUNK", 5)
    torch.testing.assert_close(CachedModel(target_model("gemma3"), capacity=64).prefill(PROMPT), whole)


@pytest.mark.parametrize("architecture", EXACT)
def test_rounding_is_not_mistaken_for_foresight(architecture: str) -> None:
    CachedModel(random_model(EXACT[architecture]).bfloat16(), capacity=8)


def test_an_encoder_that_is_configured_as_a_decoder_is_a_causal_model() -> None:
    CachedModel(random_model(BertConfig(**BERT_SIZES, is_decoder=True)), capacity=8)


def test_a_model_is_asked_once_whether_it_is_causal() -> None:
    model, passes = random_model(CONFIGS["llama"]), []
    model.register_forward_hook(lambda *_: passes.append(1))
    first = CachedModel(model, capacity=8)
    asked = len(passes)
    CachedModel(model, capacity=8)
    assert len(passes) == asked > 0
    assert first.length == 0  # what was asked has been forgotten


def test_a_loaded_model_is_never_changed() -> None:
    model = target_model("llama")
    before = {name: parameter.clone() for name, parameter in model.state_dict().items()}
    with_itself("llama", "tli", 4)
    with_itself("llama", "slem", 4)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.state_dict().items())
