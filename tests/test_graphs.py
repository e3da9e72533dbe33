"""Recording and replaying: fresh inputs, results of one's own, and a way on where it fails."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
import torch

from hsd_cli.decoding.verification import Randomness
from hsd_cli.runtime import graphs
from hsd_cli.runtime.graphs import Graphs, graphs_for
from tests.recording import record

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
RECORDED = [pytest.param("cpu"), pytest.param("cuda", marks=CUDA)]


def graphs_on(device: str) -> Graphs:
    return graphs_for(torch.device(device)) or Graphs(record)


def doubled(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (2 * x,)


@pytest.mark.parametrize("device", RECORDED)
def test_each_run_is_of_its_own_inputs(device: str) -> None:
    runs = graphs_on(device)
    results = [runs.run("double", doubled, torch.full((3,), float(x), device=device)) for x in range(4)]
    assert [float(result[0][2]) for result in results if result] == [0, 2, 4, 6]


@pytest.mark.parametrize("device", RECORDED)
def test_results_outlive_other_recordings(device: str) -> None:
    runs = graphs_on(device)
    x = torch.ones(1000, device=device)
    first = runs.run("double", doubled, x)
    for size in range(1, 20):
        runs.run(size, lambda y: (y * 3 + y.cumsum(0),), torch.ones(1000 + size, device=device))
    again = runs.run("double", doubled, x * 5)
    assert first is not None
    assert again is not None
    assert first[0].unique().tolist() == [2]
    assert again[0].unique().tolist() == [10]


@pytest.mark.parametrize("device", RECORDED)
def test_what_was_forgotten_is_recorded_anew(device: str) -> None:
    runs = graphs_on(device)
    weight = torch.ones(3, device=device)
    for factor in (1.0, 7.0):
        weight = torch.full((3,), factor, device=device)
        result = runs.run("scale", lambda x, weight=weight: (x * weight,), torch.ones(3, device=device))
        assert result is not None
        assert result[0].tolist() == [factor] * 3
        runs.forget()


@pytest.mark.parametrize("device", RECORDED)
def test_replays_draw_fresh_numbers_by_the_same_law(device: str) -> None:
    runs = graphs_on(device)
    generator = torch.Generator(device).manual_seed(1)
    randomness = Randomness(generator)
    weights = torch.tensor([0.1, 0.2, 0.7], device=device)
    drawn: Counter[int] = Counter()
    for _ in range(2000):
        result = runs.run("draw", lambda w: (randomness.draw(w),), weights, generator=generator)
        assert result is not None
        drawn[int(result[0])] += 1
    expected = [200, 400, 1400]
    assert sum((drawn[i] - count) ** 2 / count for i, count in enumerate(expected)) < 13.8  # 0.1 % of all samples


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: (x * x.sum().item(),),
        lambda x: (x[x > 0],),
        lambda x: (x * torch.tensor(2.0),),
        lambda x: (torch.where(x > 0, x, 0),),
    ],
    ids=["a value", "a shape", "a number of the host", "a number of the host in where"],
)
def test_what_waits_for_the_device_is_not_recorded_and_the_caller_is_told_once(
    waiting: graphs.Function, caplog: pytest.LogCaptureFixture
) -> None:
    graphs._tell.cache_clear()
    for _ in range(2):
        runs = Graphs(record)
        with caplog.at_level(logging.WARNING):
            assert runs.run("waits", waiting, torch.ones(2)) is None
        assert runs.run("double", doubled, torch.ones(2)) is None
    (told,) = caplog.messages
    assert told.startswith("CUDA graphs are not used, so decoding is slower: ")


@CUDA
def test_a_failed_recording_leaves_the_device_usable(caplog: pytest.LogCaptureFixture) -> None:
    runs = graphs_for(torch.device("cuda"))
    assert runs is not None
    assert runs.run("waits", lambda x: (x * x.sum().item(),), torch.ones(2, device="cuda")) is None
    assert torch.ones(2, device="cuda").sum().item() == 2


def test_a_cpu_needs_no_graphs() -> None:
    assert graphs_for(torch.device("cpu")) is None


@pytest.mark.parametrize("device", RECORDED)
def test_a_replay_is_timed_and_nothing_is_kept_of_it(device: str) -> None:
    runs = graphs_on(device)
    assert runs.seconds(doubled, torch.ones(3, device=device)) > 0
    assert not runs._recordings


def test_what_cannot_be_recorded_is_not_timed_and_others_are_recorded_all_the_same() -> None:
    runs = Graphs(record)
    with pytest.raises(RuntimeError, match="waits for the device"):
        runs.seconds(lambda x: (x[x > 0],), torch.ones(2))
    assert runs.run("double", doubled, torch.ones(2)) is not None
