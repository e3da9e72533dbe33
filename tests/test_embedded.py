"""The embedded models: real, trained, small, and as lossless as any pair."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hsd_cli.bench import demo
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Engine, Generation, Request
from hsd_cli.models.locate import EMBEDDED_FOLDER
from hsd_cli.models.train_embedded import read_corpus
from hsd_cli.runtime.loading import LoadedModel, load_model
from hsd_cli.vocab.source import read_vocabulary
from tests.breadth import breadth, thorough

TOKENS = 200
PROMPTS = [text[:300] for text in read_corpus()[1] if len(text) > 2000][:2]
PAIRS = [
    ("lookup", None),
    ("slem", "drafter"),
    ("slrs", "drafter"),
    ("tli", "drafter"),
    ("union", "drafter"),
    ("auto", "drafter"),
    ("slem", "speller"),
    ("slrs", "speller"),
    ("slem", "twin"),
    ("sd", "twin"),
]


@cache
def model(name: str) -> LoadedModel:
    """End of text does not end these texts: they are compared over their whole length."""
    return replace(load_model(f"embedded:{name}", device="cpu"), eos_ids=())


@cache
def engine(drafter: str | None) -> Engine:
    return Engine(model("target"), None if drafter is None else model(drafter))


def written(generation: Generation) -> list[int]:
    return [piece.token for commit in generation.commits for piece in commit.pieces]


@cache
def reference(prompt: str) -> list[int]:
    folder = EMBEDDED_FOLDER / "target"
    inputs = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")
    target = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = target.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, eos_token_id=None)
    return ids[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("lookahead", breadth([1, 4, 11], quick=[4]))
@pytest.mark.parametrize(("algorithm", "drafter"), breadth(PAIRS, quick=[("slrs", "drafter"), ("auto", "drafter")]))
def test_greedy_text_equals_generate(algorithm: str, drafter: str | None, lookahead: int) -> None:
    prompt = PROMPTS[lookahead % 2]
    request = Request(prompt, algorithm=algorithm, lookahead=lookahead, max_new_tokens=TOKENS)
    assert written(engine(drafter).generate(request)) == reference(prompt)


@pytest.mark.parametrize("prompt", PROMPTS, ids=["first", "second"])
def test_plain_text_equals_generate(prompt: str) -> None:
    assert written(engine(None).generate(Request(prompt, algorithm="ar", max_new_tokens=TOKENS))) == reference(prompt)


@thorough
@pytest.mark.parametrize(("seed", "lookahead"), [(0, 2), (1, 5), (2, 3)])
def test_a_seeded_text_is_the_same_for_every_algorithm_and_as_plain_decoding(seed: int, lookahead: int) -> None:
    request = Request(PROMPTS[0], sampling=SamplingSettings(temperature=0.8, top_p=0.95), seed=seed, max_new_tokens=60)
    plain = written(engine(None).generate(replace(request, algorithm="ar")))
    for algorithm, drafter in PAIRS:
        changed = replace(request, algorithm=algorithm, lookahead=lookahead)
        assert written(engine(drafter).generate(changed)) == plain


@thorough
def test_the_repetition_penalty_is_generates_own() -> None:
    settings = SamplingSettings(repetition_penalty=1.3)
    folder = EMBEDDED_FOLDER / "target"
    inputs = AutoTokenizer.from_pretrained(folder)(PROMPTS[0], return_tensors="pt")
    target = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = target.generate(**inputs, max_new_tokens=80, do_sample=False, eos_token_id=None, repetition_penalty=1.3)
    expected = ids[0, inputs["input_ids"].shape[1] :].tolist()
    for algorithm, drafter in PAIRS:
        request = Request(PROMPTS[0], algorithm=algorithm, sampling=settings, max_new_tokens=80)
        assert written(engine(drafter).generate(request)) == expected


def test_a_drafter_can_serve_one_text_after_another_and_stays_as_it_was() -> None:
    # Greedy, then sampled, then for another target: none of it may leave a trace.
    before = {name: weight.clone() for name, weight in model("drafter").model.state_dict().items()}
    greedy = Request(PROMPTS[0], algorithm="slem", max_new_tokens=40)
    first = written(engine("drafter").generate(greedy))
    sampled = replace(greedy, algorithm="tli", sampling=SamplingSettings(temperature=1.0), seed=1)
    written(engine("drafter").generate(sampled))
    other = Engine(model("twin"), model("drafter"))
    plain = written(other.generate(replace(greedy, algorithm="ar")))
    assert written(other.generate(replace(greedy, algorithm="tli"))) == plain
    assert written(engine("drafter").generate(greedy)) == first
    after = model("drafter").model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_the_heterogeneous_drafter_is_worth_its_while() -> None:
    drafted = accepted = 0
    for prompt in PROMPTS:
        request = Request(prompt, algorithm="slem", lookahead=1, max_new_tokens=TOKENS)
        generation = engine("drafter").generate(request)
        written(generation)
        drafted += generation.statistics.drafted
        accepted += generation.statistics.accepted
    assert accepted / drafted > 0.5


def test_prompts_of_one_token_and_single_token_texts_work() -> None:
    for algorithm, drafter in PAIRS:
        generation = engine(drafter).generate(Request("x", algorithm=algorithm, max_new_tokens=1))
        assert len(written(generation)) == 1
        assert generation.statistics.drafted == 0  # the only token is the target's own


def test_a_drafter_with_a_short_context_stops_drafting_and_the_text_goes_on() -> None:
    short = model("drafter")
    context = short.model.config.max_position_embeddings
    short.model.config.max_position_embeddings = 120
    try:
        generation = Engine(model("target"), short).generate(
            Request(PROMPTS[0], algorithm="slem", max_new_tokens=TOKENS)
        )
        assert written(generation) == reference(PROMPTS[0])
        assert generation.statistics.drafted < TOKENS
    finally:
        short.model.config.max_position_embeddings = context


def test_the_models_are_small_and_of_different_families() -> None:
    files = [path for path in EMBEDDED_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 18_000_000
    read = {name: model(name).bytes_per_token for name in ("target", "drafter", "speller", "twin")}
    assert 12e6 < read["target"] < 32e6
    assert all(read["target"] / read[name] >= 5 for name in ("drafter", "speller", "twin"))
    target, drafter, twin = (read_vocabulary(f"embedded:{name}") for name in ("target", "drafter", "twin"))
    assert target.same_tokens(twin)
    assert not target.same_tokens(drafter)
    assert "BPE" in target.family
    assert "byte fallback" in drafter.family


def test_the_training_is_on_record() -> None:
    record = json.loads((EMBEDDED_FOLDER / "training.json").read_text())
    assert record["licence"] == "PSF-2.0"
    for name in ("target", "drafter", "speller", "twin"):
        assert record[name]["held_out_nats_per_token"] > 0


def test_plain_passes_can_be_asked_for_first() -> None:
    generation = engine("drafter").generate(
        Request(PROMPTS[0], algorithm="slem", lookahead=2, max_new_tokens=12, time_plain=True)
    )
    drafted = [commit.drafted for commit in generation.commits]
    assert drafted[:3] == [0, 0, 0]
    assert any(drafted[3:])


def test_the_demo_writes_a_text_that_the_drafter_speeds_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "REPEATS", 1)
    demo.main()
    out = capsys.readouterr().out
    text, drafts, times = out.rstrip("\n").split("\nhsd: ")
    assert text.startswith(demo.PROMPT)
    assert "embedded:drafter" in drafts
    assert re.fullmatch(r"\d+\.\d times plain decoding: \d+ tokens/s against \d+, the same text, .*", times)


def test_the_text_of_the_demo_does_not_repeat_itself() -> None:
    tokens = written(engine(None).generate(demo.PLAIN))
    runs = {tuple(tokens[at : at + 8]) for at in range(len(tokens) - 7)}
    assert len(runs) > 0.8 * (len(tokens) - 7)
    generation = engine("drafter").generate(replace(demo.DRAFTED, algorithm="slem", lookahead=3))
    assert written(generation) == tokens
    assert len(tokens) / generation.statistics.iterations > 2
