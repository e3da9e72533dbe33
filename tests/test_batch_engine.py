"""Several texts at a time: each is what it would be alone, and the weights are read once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch

from hsd_cli.batch_engine import BatchEngine, Text
from hsd_cli.decoding.loop import Commit, Piece
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.drafting.registry import ALGORITHMS
from hsd_cli.engine import Engine, Request
from hsd_cli.errors import HsdError, OutOfMemoryError
from hsd_cli.planner.batch_size import MOST, texts_that_fit
from hsd_cli.planner.costs import Costs, SharedCosts
from hsd_cli.runtime.dense import DenseDecoder, Reading
from hsd_cli.runtime.grid import GridReader
from hsd_cli.runtime.host import WaitingTogether
from hsd_cli.runtime.loading import load_model
from tests.breadth import breadth
from tests.cli import PAIRS

PROMPTS = ["def fib(n):\n", "import os\n", "class Stack:\n    def push(self", "for i in range(", "x = ["]
SAMPLED = SamplingSettings(temperature=0.8, top_p=0.95)


@pytest.fixture(scope="module")
def pair() -> Engine:
    """Both models have been compared with the library's once, which takes a pass."""
    pair = Engine(load_model("embedded:target", "cpu"), load_model("embedded:drafter", "cpu"))
    list(pair.generate(Request("a", algorithm="slem", max_new_tokens=3)).commits)
    return pair


def requests(algorithm: str, sampling: SamplingSettings = SAMPLED) -> list[Request]:
    """Of different lengths, so that texts come and go."""
    return [
        Request(prompt, algorithm=algorithm, max_new_tokens=6 + 5 * number, sampling=sampling, seed=number)
        for number, prompt in enumerate(PROMPTS)
    ]


def alone(pair: Engine, request: Request) -> str:
    return "".join(commit.text for commit in pair.generate(request).commits)


def together(engine: BatchEngine, wanted: Sequence[Request]) -> list[str]:
    """All texts; as one ends another begins."""
    waiting, texts = list(wanted), dict[int, str]()
    number_of: dict[Text, int] = {}
    while waiting or engine.texts:
        while waiting and engine.free:
            number_of[engine.begin(waiting[0])] = len(number_of)
            del waiting[0]
        for text, happened in engine.step():
            assert isinstance(happened, Commit), happened
            number = number_of[text]
            texts[number] = texts.get(number, "") + happened.text
    return [texts[number] for number in range(len(wanted))]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The numbers of tokens of each text, for every pass."""
    seen: list[list[int]] = []
    logits = GridReader.logits

    def note(reader: GridReader, readings: Sequence[Reading]) -> Any:
        seen.append([len(reading.ids) for reading in readings])
        return logits(reader, readings)

    monkeypatch.setattr(GridReader, "logits", note)
    return seen


@pytest.mark.parametrize(
    "algorithm", breadth([*(name for name in ALGORITHMS if name != "sd"), "auto"], quick=["slrs", "auto"])
)
def test_a_text_does_not_depend_on_the_company_it_keeps(pair: Engine, algorithm: str) -> None:
    wanted = requests(algorithm)
    assert together(BatchEngine(pair, 3), wanted) == [alone(pair, request) for request in wanted]


@pytest.mark.parametrize("algorithm", ["ar", "slem", "slrs", "auto"])
def test_texts_wait_for_a_device_together(pair: Engine, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[int] = []
    run = WaitingTogether.run

    def noted(waits: WaitingTogether) -> None:
        waiting.append(len(waits))
        run(waits)

    monkeypatch.setattr(WaitingTogether, "run", noted)
    engine = BatchEngine(pair, 3)
    engine._waits = WaitingTogether()  # as on a GPU
    wanted = requests(algorithm)
    assert together(engine, wanted) == [alone(pair, request) for request in wanted]
    assert max(waiting) == 3
    assert len(waiting) < 0.6 * sum(waiting)
    assert not len(engine._waits)


@pytest.mark.parametrize("algorithm", [*(name for name in ALGORITHMS if name != "sd"), "auto"])
def test_log_probabilities_are_the_targets_alone_whatever_drafts(pair: Engine, algorithm: str) -> None:
    engine = BatchEngine(pair, 3)
    engine._waits = WaitingTogether()  # as on a GPU
    wanted = [replace(request, logprobs=number) for number, request in enumerate(requests(algorithm)[:3])]
    pieces: dict[Text, list[Piece]] = {engine.begin(request): [] for request in wanted}
    while engine.texts:
        for text, happened in engine.step():
            assert isinstance(happened, Commit), happened
            pieces[text] += happened.pieces
    for text, written in pieces.items():
        assert text.generation is not None
        read = text.generation.prompt.ids
        ids = torch.tensor([*read, *(piece.token for piece in written)])
        with torch.inference_mode():
            law = pair.target.model(ids[None]).logits[0, len(read) - 1 : -1].log_softmax(-1)
        likeliest = law.topk(text.request.logprobs or 0)
        for place, piece in enumerate(written):
            assert piece.logprobs is not None
            assert piece.logprobs.written == pytest.approx(law[place, piece.token].item(), abs=1e-4)
            told = dict(piece.logprobs.likeliest)
            assert list(told) == likeliest.indices[place].tolist()
            assert list(told.values()) == pytest.approx(likeliest.values[place].tolist(), abs=1e-4)


def test_greedy_texts_and_sampled_ones_with_settings_of_their_own_go_together(pair: Engine) -> None:
    wanted = [
        request
        for both in zip(requests("slem", SamplingSettings()), requests("slrs", replace(SAMPLED, top_k=5)), strict=True)
        for request in both
    ]
    assert together(BatchEngine(pair, 4), wanted) == [alone(pair, request) for request in wanted]


def test_texts_share_passes_without_padding(pair: Engine, passes: list[list[int]]) -> None:
    wanted = [Request(prompt, algorithm="ar", max_new_tokens=9) for prompt in PROMPTS[:3]]
    together(BatchEngine(pair, 3), wanted)
    prompts, *others = passes
    assert len(set(prompts)) > 1, "the prompts are read in one pass, each in its own length"
    assert others == [[1, 1, 1]] * 9, "then every pass has a token of each"


def test_a_waiting_text_takes_the_place_of_one_that_ended_at_once(pair: Engine, passes: list[list[int]]) -> None:
    wanted = [Request("a", algorithm="ar", max_new_tokens=length) for length in (2, 9, 7)]
    together(BatchEngine(pair, 2), wanted)
    assert [len(each) for each in passes].count(2) == 9


def test_drafts_of_all_texts_are_made_before_the_target_checks_them_together(
    pair: Engine, passes: list[list[int]]
) -> None:
    wanted = [Request(prompt, algorithm="slem", lookahead=3, max_new_tokens=12) for prompt in PROMPTS[:3]]
    together(BatchEngine(pair, 3), wanted)
    assert [4, 4, 4] in passes, "three drafts and the token before each, in one pass"


def test_one_that_cannot_be_served_leaves_the_others_alone(pair: Engine) -> None:
    engine = BatchEngine(pair, 2)
    good, bad = Request("a", max_new_tokens=5), Request("a b " * 3000, max_new_tokens=5)
    texts = engine.begin(bad), engine.begin(good)
    failures = []
    written = ""
    while engine.texts:
        for text, happened in engine.step():
            if isinstance(happened, Commit):
                assert text is texts[1]
                written += happened.text
            else:
                failures.append((text, happened))
    [(failed, why)] = failures
    assert failed is texts[0]
    assert isinstance(why, HsdError)
    assert written == alone(pair, good)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_text_that_is_given_up_frees_its_seat(pair: Engine, steps: int) -> None:
    engine = BatchEngine(pair, 2)
    kept = Request("import os\n", max_new_tokens=12)
    left = engine.begin(Request("def f(", max_new_tokens=500))
    engine.begin(kept)
    written = ""
    for _ in range(steps):
        written += "".join(what.text for text, what in engine.step() if text is not left and isinstance(what, Commit))
    engine.end(left)
    engine.end(left)
    assert engine.free == 1
    while engine.texts:
        written += "".join(what.text for _, what in engine.step() if isinstance(what, Commit))
    assert written == alone(pair, kept)
    assert together(engine, [kept, kept]) == [written] * 2, "its seat is as good as before"


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError(), RuntimeError("kernel launch failed")], ids=repr)
def test_texts_that_cannot_be_read_in_one_pass_are_read_in_smaller_groups(
    pair: Engine, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    logits = GridReader.logits

    def small(reader: GridReader, readings: Sequence[Reading]) -> Any:
        result = logits(reader, readings)  # and the caches are written
        if len(readings) > 2:
            raise failure
        return result

    wanted = requests("slem")
    expected = [alone(pair, request) for request in wanted]
    monkeypatch.setattr(GridReader, "logits", small)
    assert together(BatchEngine(pair, 5), wanted) == expected


@pytest.mark.parametrize("passes", [0, 1, 9])
def test_a_pass_of_the_drafter_that_fails_for_all_costs_none_its_text(
    letters: str, pairs: str, monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    target, drafter = load_model(letters), load_model(pairs)
    wanted = [Request(prompt, algorithm="slem", lookahead=3, max_new_tokens=30) for prompt in ("a", "abc", "x")]
    expected = [alone(Engine(target, None), replace(request, algorithm="ar")) for request in wanted]
    predict, made = DenseDecoder.predict, count()

    def fragile(decoder: DenseDecoder, states: torch.Tensor) -> torch.Tensor:
        logits = predict(decoder, states)
        if logits.shape[-1] == len(PAIRS) + 1 and next(made) >= passes:
            raise RuntimeError("kernel launch failed")
        return logits

    monkeypatch.setattr(DenseDecoder, "predict", fragile)
    assert together(BatchEngine(Engine(target, drafter, strict=False), 2), wanted) == expected
    assert next(made) > passes


def test_a_batch_shrinks_where_its_texts_take_too_much_memory(pair: Engine) -> None:
    engine = BatchEngine(pair, 4)
    first = engine.begin(Request("a", max_new_tokens=3))
    engine.begin(Request("b", max_new_tokens=3))
    engine.shrink()
    assert (engine.size, engine.free) == (2, 0)
    engine.end(first)
    assert engine.free == 1


def test_memory_that_is_short_for_one_text_alone_is_its_failure(pair: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(DenseDecoder, "logits", none)
    engine = BatchEngine(pair, 1)
    engine.begin(Request("a", algorithm="ar"))
    [(_, why)] = engine.step()
    assert isinstance(why, OutOfMemoryError)


def test_a_pass_is_as_dear_to_a_text_as_if_all_others_did_the_same() -> None:
    passes = Costs(1.0)
    for tokens, seconds in ((4, 1.0), (8, 1.5), (12, 2.0)):
        for _ in range(3):
            passes.observe_pass(tokens, seconds)
    costs = SharedCosts(0.1, passes, lambda: 4)
    assert costs.verification(1) == 1.0
    assert costs.verification(3) == 2.0
    assert costs.marginal == pytest.approx(0.5)
    assert costs.step("slem") == pytest.approx(0.1)


def test_texts_share_the_vocabularies_too(pair: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsd_cli.engine.ModelTokenizer.of", lambda _: pytest.fail("read once more"))
    assert len(together(BatchEngine(pair, 3), requests("slem"))) == len(PROMPTS)


def test_auto_takes_no_more_texts_than_the_memory_holds(pair: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert texts_that_fit(pair.target, pair.drafter) == MOST
    assert 1 < texts_that_fit_in(monkeypatch, pair, 600 << 20) < MOST
    assert texts_that_fit_in(monkeypatch, pair, 1 << 20) == 1
    assert texts_that_fit_in(monkeypatch, pair, 1200 << 20, share=0.5) == texts_that_fit_in(
        monkeypatch, pair, 600 << 20
    )


def texts_that_fit_in(monkeypatch: pytest.MonkeyPatch, pair: Engine, memory: int, share: float = 1.0) -> int:
    monkeypatch.setattr("hsd_cli.planner.batch_size.memory_by_device", lambda: {"cpu": memory})
    return texts_that_fit(pair.target, pair.drafter, share)
