"""The sampling settings give what transformers' own processors give, row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from hsd_cli.decoding.sampling import Warper
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.errors import UsageError

SIZE = 40
MODEL = GPT2LMHeadModel(GPT2Config(vocab_size=SIZE, n_embd=4, n_layer=1, n_head=1))

settings = st.builds(
    SamplingSettings,
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 3, 100]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
)


def reference(chosen: SamplingSettings, ids: list[int], logits: torch.Tensor) -> torch.Tensor:
    """What ``generate`` would sample from after ``ids``."""
    config = GenerationConfig(
        do_sample=True,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
        min_p=chosen.min_p or None,
        repetition_penalty=chosen.repetition_penalty,
    )
    processors = MODEL._get_logits_processor(config, input_ids_seq_length=len(ids))
    return processors(torch.tensor([ids]), logits[None].clone())[0].softmax(-1)


@given(settings, st.integers(0, 1000), st.lists(st.integers(0, SIZE - 1), max_size=4))
def test_every_row_equals_the_references_processors(chosen: SamplingSettings, seed: int, drafted: list[int]) -> None:
    prompt = [3, 5, 3, 8]
    logits = torch.randn(len(drafted) + 1, SIZE, generator=torch.Generator().manual_seed(seed)) * 3
    warper = Warper(chosen, SIZE, torch.device("cpu"))
    warper.follow(prompt, 0)
    rows = warper.probabilities(logits, torch.tensor(drafted, dtype=torch.int64))
    for place, row in enumerate(rows):
        expected = reference(chosen, prompt + drafted[:place], logits[place])
        torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-7)


@given(st.lists(st.tuples(st.integers(0, 8), st.lists(st.integers(0, SIZE - 1), max_size=4)), max_size=6))
def test_the_penalty_follows_a_context_that_shrinks_and_grows(steps: list[tuple[int, list[int]]]) -> None:
    chosen = SamplingSettings(temperature=1.0, repetition_penalty=2.0)
    logits = torch.linspace(-3, 3, SIZE)[None]
    nothing = torch.empty(0, dtype=torch.int64)
    warper = Warper(chosen, SIZE, torch.device("cpu"))
    ids: list[int] = []
    for keep, new in steps:
        unchanged = min(keep, len(ids))
        ids = ids[:unchanged] + new
        warper.follow(ids, unchanged)
        fresh = Warper(chosen, SIZE, torch.device("cpu"))
        fresh.follow(ids, 0)
        assert torch.equal(warper.logits(logits, nothing), fresh.logits(logits, nothing))


def test_one_row_sees_every_drafted_token() -> None:
    warper = Warper(SamplingSettings(temperature=1.0, repetition_penalty=2.0), SIZE, torch.device("cpu"))
    warped = warper.logits(torch.ones(1, SIZE), torch.tensor([4, 7]))
    assert (warped[0] == 0.5).nonzero().flatten().tolist() == [4, 7]


@given(settings, st.lists(st.integers(0, SIZE - 1), max_size=4))
def test_without_sorting_the_likeliest_token_is_the_same(chosen: SamplingSettings, drafted: list[int]) -> None:
    logits = torch.linspace(-3, 3, SIZE).repeat(len(drafted) + 1, 1)
    warper = Warper(chosen, SIZE, torch.device("cpu"))
    warper.follow([SIZE - 1, 0], 0)
    ids = torch.tensor(drafted, dtype=torch.int64)
    assert torch.equal(warper.penalised(logits, ids).argmax(-1), warper.probabilities(logits, ids).argmax(-1))


def test_no_setting_waits_for_the_device() -> None:
    # Tensors on the "meta" device have no numbers: asking for one is an error.
    nowhere = torch.device("meta")
    chosen = SamplingSettings(temperature=0.7, top_k=3, top_p=0.9, min_p=0.1, repetition_penalty=1.3)
    warped = Warper(chosen, SIZE, nowhere).logits(
        torch.ones(3, SIZE, device=nowhere), torch.zeros(2, dtype=torch.int64, device=nowhere)
    )
    assert warped.shape == (3, SIZE)


def test_greedy_settings_leave_the_logits_alone() -> None:
    logits = torch.randn(2, SIZE)
    greedy = Warper(SamplingSettings(temperature=0, top_k=1, top_p=0.1), SIZE, torch.device("cpu"))
    assert torch.equal(greedy.logits(logits, torch.tensor([1])), logits)


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -0.1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": 2.0}, {"repetition_penalty": 0.0}],
    ids=str,
)
def test_impossible_settings_are_refused_by_name(wrong: dict[str, float]) -> None:
    flag = "--" + next(iter(wrong)).replace("_", "-")
    with pytest.raises(UsageError, match=flag):
        SamplingSettings(**wrong)  # type: ignore[arg-type]
