"""The contenders of `hsd bench`, one text each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hsd_cli.bench.contenders import Job, ours, theirs
from hsd_cli.bench.counted import CountedEngine
from hsd_cli.runtime.loading import LoadedModel, load_model

LOOKAHEAD = 4
JOB = Job("def read(path):\n    ", tokens=32)


def endless(name: str) -> LoadedModel:
    return replace(load_model(name), eos_ids=())


@pytest.fixture(scope="module")
def engine() -> CountedEngine:
    return CountedEngine(endless("embedded:target"), endless("embedded:drafter"))


def test_every_text_is_read_from_its_beginning(engine: CountedEngine) -> None:
    run = ours(engine, "slem", 0.0, LOOKAHEAD)
    first, passes = run(JOB), engine.drafter_passes
    again = run(JOB)
    assert again.iterations == first.iterations
    assert again.steps == first.steps
    assert engine.drafter_passes == passes


def test_reading_the_prompt_is_no_step_whenever_it_is_read(engine: CountedEngine) -> None:
    sample = ours(engine, "auto", 0.0, None)(JOB)
    assert sample.iterations[0] == (0, 0)  # so that the drafter reads the prompt later, if at all
    assert engine.drafter_passes > 1
    assert sample.steps == engine.drafter_passes - 1
    assert sample.seconds > sample.first_seconds + sample.decode_seconds  # and the time for it is none of decoding


def test_seeds_fix_sampled_texts(engine: CountedEngine) -> None:
    run = ours(engine, "tli", 1.0, LOOKAHEAD)
    assert run(JOB).iterations == run(JOB).iterations
    assert run(JOB).iterations != run(replace(JOB, repeat=1)).iterations


def test_peers_draft_as_long_and_say_the_same(engine: CountedEngine) -> None:
    plain = theirs(engine.target, None, 0.0, LOOKAHEAD)(JOB)
    assert plain.iterations == ((0, 0),) * JOB.tokens
    assert (plain.tokens, plain.first_tokens, plain.steps) == (JOB.tokens, 1, 0)
    assisted = theirs(engine.target, load_model("embedded:drafter"), 0.0, LOOKAHEAD)(JOB)
    assert assisted.tokens == JOB.tokens
    assert assisted.tokens == sum(1 + accepted for _, accepted in assisted.iterations)
    # The first draft's steps are not counted.
    assert 0 < assisted.steps <= LOOKAHEAD * (len(assisted.iterations) - 1)
    assert max(drafted for drafted, _ in assisted.iterations) <= 2 * LOOKAHEAD
