"""Real architectures: greedy text equals ``generate``'s token for token, and rolling back leaves no trace."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch
from transformers import (
    BertConfig,
    Gemma3TextConfig,
    MambaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    T5Config,
    T5ForConditionalGeneration,
    XLMConfig,
)

from hsd_cli.decoding.loop import Limits, decode
from hsd_cli.decoding.sampling import Warper
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.decoding.statistics import Statistics
from hsd_cli.decoding.text import TextStream
from hsd_cli.decoding.verification import Coupled
from hsd_cli.drafting.ar import NoDrafter
from hsd_cli.drafting.registry import ALGORITHMS, Pair, Side
from hsd_cli.errors import HsdError
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.model import CachedModel
from tests.architectures import (
    BYTES,
    CONFIGS,
    RESCALED,
    RESCALED_FROM,
    SIZES,
    byte_vocabulary,
    imperfect_copy,
    random_model,
)

PROMPT = list(b"for byte in text:")
TOKENS = 200
# The drafter's numbering of the bytes.
SHUFFLED = random.Random(0).sample(range(BYTES), BYTES)


@cache
def target_model(architecture: str) -> PreTrainedModel:
    return random_model({**CONFIGS, **RESCALED}[architecture])


@cache
def drafter_model(architecture: str, shuffled: bool) -> PreTrainedModel:
    return imperfect_copy(target_model(architecture), SHUFFLED if shuffled else list(range(BYTES)))


@cache
def reference(architecture: str) -> list[int]:
    ids = torch.tensor([PROMPT])
    written = target_model(architecture).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False
    )
    return written[0, len(PROMPT) :].tolist()


def greedy(architecture: str, algorithm: str, lookahead: int) -> tuple[list[int], Statistics]:
    """Our text, and what was counted."""
    model = CachedModel(target_model(architecture), capacity=8)
    vocabulary, rule, clock, statistics = byte_vocabulary(), Coupled(None), PhaseClock(), Statistics()
    side = Side(model, vocabulary, PROMPT)
    if algorithm == "ar":
        drafter = NoDrafter(model.device)
    else:
        shuffled = algorithm != "sd"
        other = byte_vocabulary(SHUFFLED if shuffled else None)
        second = CachedModel(drafter_model(architecture, shuffled), capacity=8)
        warp = Warper(SamplingSettings(), BYTES, second.device)
        drafter = ALGORITHMS[algorithm](Pair(side, Side(second, other, other.encode(bytes(PROMPT))), warp, rule, clock))
    commits = decode(
        model,
        drafter,
        PROMPT,
        Limits(TOKENS, lookahead),
        rule=rule,
        warper=Warper(SamplingSettings(), BYTES, model.device),
        text=TextStream(vocabulary),
        clock=clock,
        statistics=statistics,
    )
    return [piece.token for commit in commits for piece in commit.pieces], statistics


@pytest.mark.parametrize("lookahead", [1, 4, 11])
@pytest.mark.parametrize("algorithm", ["ar", "sd", "slem", "tli", "union"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_greedy_text_equals_generate(architecture: str, algorithm: str, lookahead: int) -> None:
    text, statistics = greedy(architecture, algorithm, lookahead)
    assert text == reference(architecture)
    if algorithm != "ar":  # both ways out of the verifier were taken
        assert 0 < statistics.accepted < statistics.drafted


@pytest.mark.parametrize("algorithm", ["ar", "sd", "slem", "tli"])
@pytest.mark.parametrize("architecture", RESCALED)
def test_text_equals_generates_and_ends_where_the_positions_would_be_rescaled(
    architecture: str, algorithm: str
) -> None:
    text, _ = greedy(architecture, algorithm, lookahead=4)
    assert text == reference(architecture)[: RESCALED_FROM - len(PROMPT)]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_rolling_back_equals_never_having_read(architecture: str) -> None:
    model = CachedModel(target_model(architecture), capacity=4)
    chooser = random.Random(0)
    kept = list(PROMPT)
    model.prefill(kept)
    for _ in range(25):
        drafted = [chooser.randrange(BYTES) for _ in range(chooser.randrange(1, 9))]
        logits = model.run(torch.tensor(drafted))
        accepted = chooser.randrange(len(drafted) + 1)
        kept += drafted[:accepted]
        model.rollback(len(kept))
        assert model.length == len(kept)
        assert len(logits) == len(drafted)
    fresh = CachedModel(target_model(architecture), capacity=1000)
    fresh.prefill(kept)
    following = torch.tensor([1, 2, 3])
    torch.testing.assert_close(model.run(following), fresh.run(following), rtol=1e-5, atol=1e-5)
    for ours, new in zip(model._cache.layers, fresh._cache.layers, strict=True):
        length = len(kept)
        torch.testing.assert_close(ours.keys[:, :, :length], new.keys[:, :, :length], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.values[:, :, :length], new.values[:, :, :length], rtol=1e-5, atol=1e-5)


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


BERT_SIZES = {key: SIZES[key] for key in SIZES if key not in ("num_key_value_heads", "pad_token_id")}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MambaConfig(vocab_size=9, hidden_size=8, state_size=4, num_hidden_layers=1), "recurrent"),
        (BertConfig(**BERT_SIZES), "bidirectional"),
        (RobertaConfig(**BERT_SIZES), "bidirectional"),
        (Gemma3TextConfig(**SIZES, head_dim=8, use_bidirectional_attention=True), "bidirectional"),
        (XLMConfig(vocab_size=9, emb_dim=8, n_layers=1, n_heads=2), "does not use the cache"),
    ],
    ids=["mamba", "bert", "roberta", "bidirectional gemma3", "xlm"],
)
def test_models_that_cannot_be_verified_are_refused_before_they_read_a_prompt(
    config: PreTrainedConfig, reason: str
) -> None:
    with pytest.raises(HsdError, match=reason):
        CachedModel(random_model(config), capacity=8)


def test_encoder_decoders_are_refused() -> None:
    model = T5ForConditionalGeneration(T5Config(vocab_size=9, d_model=8, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(HsdError, match="encoder-decoder"):
        CachedModel(model, capacity=8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_rounding_is_not_mistaken_for_foresight(architecture: str, dtype: torch.dtype) -> None:
    CachedModel(random_model(CONFIGS[architecture]).to(dtype), capacity=8)


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
    greedy("llama", "tli", 4)
    greedy("llama", "slem", 4)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.state_dict().items())
