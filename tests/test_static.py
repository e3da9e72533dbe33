"""Reading by recordings: the numbers of the eager pass, wherever in the text, whatever lies behind it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from transformers import PreTrainedModel

from hsd_cli.decoding.settings import SamplingSettings, Verification
from hsd_cli.drafting.registry import ALGORITHMS
from hsd_cli.engine import Engine, Request
from hsd_cli.runtime.graphs import Function, Graphs, Recording
from hsd_cli.runtime.loading import LoadedModel, load_model
from hsd_cli.runtime.model import CachedModel
from hsd_cli.runtime.static import SIZES, bucket_for
from tests.architectures import random_model
from tests.breadth import breadth
from tests.test_dense import DENSE

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_buckets_are_a_quarter_of_the_text_too_large_at_most() -> None:
    for length in range(1, 20000):
        bucket = bucket_for(length)
        assert length <= bucket <= max(256, length * 1.25)
    assert len({bucket_for(length) for length in range(256, 4097)}) == 1 + 4 * 4


class Reading:
    """A model that reads at random, and every word of the library's about the same text."""

    def __init__(self, model: PreTrainedModel, capacity: int, seed: int) -> None:
        self.ours = CachedModel(model, capacity)
        self._model = model
        self._random = random.Random(seed)
        self._text: list[int] = []

    def new(self, count: int) -> list[int]:
        return [self._random.randrange(self.ours.vocabulary_size) for _ in range(count)]

    def prefill(self, count: int) -> None:
        self._check(self.ours.prefill(ids := self.new(count)), ids, 1)

    def run(self, count: int) -> None:
        self._check(self.ours.run(torch.tensor(ids := self.new(count), device=self.ours.device)), ids, count)

    def rollback(self, most: int) -> None:
        length = max(1, len(self._text) - self._random.randrange(most))
        del self._text[length:]
        self.ours.rollback(length)

    @torch.inference_mode()
    def _check(self, found: torch.Tensor, ids: list[int], keep: int) -> None:
        self._text += ids
        assert self.ours.length == len(self._text)
        text = torch.tensor([self._text], device=self.ours.device)
        torch.testing.assert_close(found, self._model(input_ids=text).logits[0, -keep:], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", breadth(DENSE, quick=["llama", "gemma3"]))
def test_the_numbers_are_the_librarys_at_any_length_after_rollbacks_and_when_the_cache_has_moved(
    name: str, recordings: list[str]
) -> None:
    reading = Reading(random_model(DENSE[name]), capacity=40, seed=3)
    reading.prefill(20)
    for step in range(60):
        reading.run(1 + step % 18)
        reading.rollback(16)
        reading.prefill(1 + step % 3)
    assert reading.ours.length > 256  # past the first bucket, and the first two rooms
    assert len(recordings) > len(SIZES)


@CUDA
@pytest.mark.parametrize("name", DENSE)
def test_on_a_gpu_the_numbers_are_the_librarys(name: str) -> None:
    reading = Reading(random_model(DENSE[name]).to("cuda"), capacity=40, seed=3)
    reading.prefill(20)
    for step in range(60):
        reading.run(1 + step % 18)
        reading.rollback(16)
        reading.prefill(1 + step % 3)


@torch.inference_mode()
def test_what_lies_behind_the_text_has_no_say(recordings: list[str]) -> None:
    model = random_model(DENSE["llama"])
    results = []
    for rubbish in (0.0, 1e4, float("nan")):
        ours = CachedModel(model, 64)
        ours.prefill(list(range(20)))
        for layer in ours._cache.layers:
            layer.keys[:, :, 20:] = layer.values[:, :, 20:] = rubbish
        results.append([ours.run(torch.tensor([1, 2, 3, 4])), ours.prefill([5, 6]), ours.run(torch.tensor([7]))])
    assert recordings
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            assert torch.equal(found, expected)


def test_one_recording_serves_every_place_of_a_bucket(recordings: list[str]) -> None:
    ours = CachedModel(random_model(DENSE["llama"]), 256)
    ours.prefill(list(range(20)))
    for token in range(200):
        ours.run(torch.tensor([token]))
    assert len(recordings) == 1


def test_where_nothing_can_be_recorded_texts_are_read_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: Function, inputs: Sequence[torch.Tensor], generator: torch.Generator | None) -> Recording:
        function(*inputs)  # what it wrote lies behind the text
        raise RuntimeError("no such thing here")

    monkeypatch.setattr("hsd_cli.runtime.model.graphs_for", lambda device: Graphs(fails))
    reading = Reading(random_model(DENSE["qwen3"]), capacity=40, seed=5)
    reading.prefill(20)
    for step in range(6):
        reading.run(1 + step)
        reading.rollback(4)


ALL = [*ALGORITHMS, "auto"]
CHOOSING = ["sd", "slem", "slrs", "tli", "union"]
SAMPLED = SamplingSettings(temperature=0.8, top_k=40, top_p=0.95, min_p=0.01, repetition_penalty=1.1)
PROMPT = "def read(path):\n"


@cache
def loaded(name: str, device: str) -> LoadedModel:
    return load_model(name, device, "float32")


def engine_for(algorithm: str, device: str = "cpu") -> Engine:
    return Engine(
        *(loaded(f"embedded:{name}", device) for name in ("target", "twin" if algorithm == "sd" else "drafter"))
    )


def texts(algorithm: str, device: str = "cpu") -> list[list[int]]:
    """A greedy one, and one sampled with a seed, by one engine."""
    engine = engine_for(algorithm, device)
    requests = [
        Request(PROMPT, algorithm=algorithm, lookahead=lookahead, max_new_tokens=24, sampling=sampling, seed=7)
        for lookahead, sampling in ((None, SamplingSettings()), (4, SAMPLED))
    ]
    return [
        [piece.token for commit in engine.generate(request).commits for piece in commit.pieces] for request in requests
    ]


@pytest.fixture(scope="module")
def eager_texts() -> list[list[int]]:
    """Whatever drafts: a seed, like greedy decoding, fixes the text."""
    return texts("ar")


@pytest.mark.parametrize("algorithm", breadth(ALL, quick=["slem", "tli"]))
def test_texts_are_the_same(algorithm: str, eager_texts: list[list[int]], recordings: list[str]) -> None:
    assert texts(algorithm) == eager_texts
    assert "_pass" in recordings


@pytest.mark.parametrize("algorithm", CHOOSING)
@pytest.mark.parametrize("verification", ["coupled", "rejection"])
@pytest.mark.parametrize("sampling", [SamplingSettings(temperature=1.0), SAMPLED], ids=["plain", "warped"])
def test_choosing_tokens_is_recorded(
    algorithm: str, verification: Verification, sampling: SamplingSettings, recordings: list[str]
) -> None:
    request = Request(PROMPT, None, None, algorithm, 3, 6, sampling, verification, seed=1)
    drafted = sum(commit.drafted for commit in engine_for(algorithm).generate(request).commits)
    assert drafted
    assert recordings.count("_choose") + recordings.count("_likeliest") == 1


@CUDA
@pytest.mark.parametrize("algorithm", ALL)
def test_on_a_gpu_texts_are_those_of_the_eager_pass(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed = texts(algorithm, "cuda")
    monkeypatch.setattr("hsd_cli.runtime.model.graphs_for", lambda device: None)
    assert replayed == texts("ar", "cuda")
