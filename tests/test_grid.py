"""Several texts read in one grid: the numbers are each text's own, wherever it lies and whoever lies beside it."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import PreTrainedModel

from hsd_cli.batch_engine import BatchEngine
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.drafting.registry import ALGORITHMS
from hsd_cli.engine import Engine, Request
from hsd_cli.runtime.dense import DenseDecoder, Reading, dense_decoder
from hsd_cli.runtime.graphs import Function, Graphs, Recording
from hsd_cli.runtime.grid import GridReader, bucket_of_tokens
from hsd_cli.runtime.loading import load_model
from hsd_cli.runtime.seats import SeatCache, SharedMemory
from tests.architectures import random_model
from tests.breadth import breadth
from tests.recording import record
from tests.test_batch_engine import PROMPTS, alone, together
from tests.test_dense import DENSE, EXPERTS


class Company:
    """Texts with seats beside each other, read at random; every word of the library's about each."""

    def __init__(self, model: PreTrainedModel, longest: int, recording: bool = True) -> None:
        decoder = dense_decoder(model)
        assert decoder is not None
        self.decoder: DenseDecoder = decoder
        self.memory = SharedMemory(decoder, longest)
        self.recorded: list[Function] = []
        self.reader = GridReader(decoder, self.memory, Graphs(self._record) if recording else None)
        self._model = model
        self._random = random.Random(0)
        self.texts: list[tuple[SeatCache, list[int]]] = []

    def _record(self, function: Function, *others: object) -> Recording:
        self.recorded.append(function)
        return record(function, *others)  # type: ignore[arg-type]

    def begin(self, length: int) -> None:
        """A new text, whose prompt is read by itself."""
        cache, text = SeatCache(self.memory, length), self._new(length)
        [logits] = self.decoder.logits([Reading(torch.tensor(text), cache, 0, 1)])
        self._check(text, logits, 1)
        self.texts.append((cache, text))

    def leave(self, number: int) -> None:
        del self.texts[number]

    def read(self, counts: list[int]) -> None:
        """So many tokens of each text; then some are taken back."""
        readings = []
        for (cache, text), count in zip(self.texts, counts, strict=True):
            new = self._new(count)
            readings.append(Reading(torch.tensor(new), cache, len(text), count))
            text += new
        for each, (_, text), logits in zip(readings, self.texts, self.reader.logits(readings), strict=True):
            self._check(text, logits, each.keep)
        for cache, text in self.texts:
            if taken_back := self._random.randrange(3):
                del text[-taken_back:]
                cache.rollback(len(text))

    def _new(self, count: int) -> list[int]:
        return [self._random.randrange(self._model.config.vocab_size) for _ in range(count)]

    def _check(self, text: list[int], found: torch.Tensor, keep: int) -> None:
        expected = self._model(input_ids=torch.tensor([text])).logits[0, -keep:]
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "recording"),
    breadth(
        [*((name, True) for name in DENSE), *((name, False) for name in DENSE | EXPERTS)],
        quick=[("llama", True), ("gemma3", True), ("gemma3", False), (next(iter(EXPERTS)), False)],
    ),
)
@torch.inference_mode()
def test_the_numbers_are_each_texts_own(name: str, recording: bool) -> None:
    company = Company(random_model((DENSE | EXPERTS)[name]), longest=4096, recording=recording)
    choose = random.Random(1)
    for length in (20, 3, 33):
        company.begin(length)
    for step in range(40):
        company.read([choose.choice([1, 2, 3, 5, 20]) for _ in company.texts])
        if step % 10 == 9:
            company.leave(choose.randrange(len(company.texts)))
            company.begin(1 + choose.randrange(30))
        if step == 20:
            company.begin(40)  # more seats than before
    assert company.memory.positions > 100, "it has grown"
    assert bool(company.recorded) is recording


@torch.inference_mode()
def test_one_that_gets_long_goes_on_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    company = Company(random_model(DENSE["llama"]), longest=64)
    for length in (50, 10):
        company.begin(length)
    for _ in range(16):
        company.read([4, 2])
    (long, _), (short, _) = company.texts
    assert long.seat.memory is not company.memory
    assert long.seat.memory.positions > 64
    assert short.seat.memory is company.memory
    assert company.memory.positions == 64
    company.begin(5)
    assert company.texts[-1][0].seat.row == 0, "where the long one was"
    company.read([1, 1, 1])
    company.begin(200)  # never was beside others
    company.read([1, 3, 1, 2])


@torch.inference_mode()
def test_a_new_text_is_not_told_what_an_unsound_one_left_behind() -> None:
    company = Company(random_model(DENSE["qwen2"]), longest=4096)
    for length in (9, 30):
        company.begin(length)
    for layer in company.memory.layers:
        layer[0][1] = layer[1][1] = torch.nan
    company.leave(1)
    company.begin(5)
    company.read([2, 2])
    assert company.texts[1][0].seat.row == 1


@torch.inference_mode()
def test_what_texts_that_left_held_is_freed() -> None:
    company = Company(random_model(DENSE["llama"]), longest=4096)
    for length in (9, 30, 5, 6, 7):
        company.begin(length)
    assert company.memory.rows == 8
    for number in (4, 3, 1):
        company.leave(number)
    company.memory.trim()
    assert company.memory.rows == 3, "the last of the two has the third seat"
    company.read([3, 2])


@torch.inference_mode()
def test_one_recording_serves_every_step_of_texts_that_keep_their_pace() -> None:
    company = Company(random_model(DENSE["llama"]), longest=4096)
    for length in (9, 30, 100):
        company.begin(length)
    for _ in range(12):
        company.read([4, 4, 4])
    assert len(company.recorded) == 1


@torch.inference_mode()
def test_no_recording_outlives_the_memory_that_it_was_made_with() -> None:
    company = Company(random_model(DENSE["llama"]), longest=4096)
    for length in (300, 9):
        company.begin(length)
    company.read([4, 4])
    company.begin(400)
    company.leave(2)
    company.read([4, 4])
    assert len(company.recorded) == 2


def test_passes_have_few_sizes() -> None:
    for count in range(1, 600):
        assert count <= bucket_of_tokens(count) <= max(8, 1.25 * count)
    assert len({bucket_of_tokens(count) for count in range(1, 513)}) < 40


SAMPLED = SamplingSettings(temperature=0.8, top_p=0.95)


@pytest.mark.parametrize(
    "algorithm", breadth([*(name for name in ALGORITHMS if name != "sd"), "auto"], quick=["slrs", "auto"])
)
def test_a_text_does_not_depend_on_the_company_it_keeps(
    algorithm: str, recordings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Engine(load_model("embedded:target", "cpu"), load_model("embedded:drafter", "cpu"))
    wanted = [
        Request(prompt, algorithm=algorithm, max_new_tokens=4 + 3 * number, sampling=sampling, seed=number)
        for number, (prompt, sampling) in enumerate(zip(PROMPTS, [SAMPLED, SamplingSettings()] * 3, strict=False))
    ]
    found = together(BatchEngine(pair, 3), wanted)
    assert "_pass" in recordings
    monkeypatch.setattr("hsd_cli.runtime.model.graphs_for", lambda device: None)
    assert found == [alone(pair, request) for request in wanted]


def test_where_nothing_can_be_recorded_texts_are_read_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: Function, *others: object) -> Recording:
        function(*others[0])  # type: ignore[misc]
        raise RuntimeError("no such thing here")

    pair = Engine(load_model("embedded:target", "cpu"), load_model("embedded:drafter", "cpu"))
    wanted = [Request(prompt, algorithm="slem", max_new_tokens=9) for prompt in PROMPTS]
    expected = [alone(pair, request) for request in wanted]
    monkeypatch.setattr("hsd_cli.runtime.joint.graphs_for", lambda device: Graphs(fails))
    assert together(BatchEngine(pair, 3), wanted) == expected
