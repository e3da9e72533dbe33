"""``--parallel``: real models in two threads, whatever becomes of either."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Engine, Generation, Request
from hsd_cli.runtime.loading import LoadedModel, load_model
from hsd_cli.runtime.model import CachedModel
from tests.breadth import breadth
from tests.cli import PAIRS, checkpoint, hsd
from tests.test_parallel import drafters_at_work

BEGINNING = "def read(path):\n    with open(path) as file:\n        "
TEXT = "bcdefghijklmnopqrstuvwxyz\nabcd"
NOTICE = "hsd: the drafter failed, so that it goes on without: "


@pytest.fixture(scope="module")
def pair() -> tuple[LoadedModel, LoadedModel]:
    return load_model("embedded:target", "cpu"), load_model("embedded:drafter", "cpu")


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Continues the alphabet in other tokens."""
    return checkpoint(tmp_path_factory.mktemp("pairs"), PAIRS)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[int], None]], None]:
    """``see`` hears before each pass of the model of that name how many places' logits are wanted, and may end it."""

    def install(name: str, see: Callable[[int], None]) -> None:
        forward = CachedModel._forward

        def seen(model: CachedModel, ids: torch.Tensor, keep: int) -> torch.Tensor:
            if model._model.name_or_path == name:
                see(keep)
            return forward(model, ids, keep)

        monkeypatch.setattr(CachedModel, "_forward", seen)

    return install


def ids_of(generation: Generation) -> list[int]:
    return [piece.token for commit in generation.commits for piece in commit.pieces]


def written(engine: Engine, **settings: Any) -> tuple[list[int], Generation]:
    generation = engine.generate(Request("a", max_new_tokens=30, **settings))
    return ids_of(generation), generation


@pytest.mark.parametrize("targets", breadth([2, 3], quick=[3]))
@pytest.mark.parametrize("settings", [SamplingSettings(), SamplingSettings(0.8)], ids=["greedy", "sampled"])
def test_the_text_is_the_same_with_several_targets(
    pair: tuple[LoadedModel, LoadedModel], targets: int, settings: SamplingSettings
) -> None:
    engine = Engine(*pair)
    request = {"max_new_tokens": 40, "sampling": settings, "seed": 4}
    plain = ids_of(engine.generate(Request(BEGINNING, algorithm="ar", **request)))
    for _ in range(2):
        asked = Request(BEGINNING, algorithm="slem", lookahead=3, parallel=True, targets=targets, **request)
        assert ids_of(engine.generate(asked)) == plain
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("drafter", "target"))]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--targets", 2], "hsd: --targets is about --parallel; add it\n"),
        (
            ["--targets", 2, "--parallel", "--device-map", "auto"],
            "hsd: --device-map places the target by itself; leave --targets out\n",
        ),
    ],
)
def test_several_targets_need_parallel_drafting_and_whole_models(options: list[object], said: str) -> None:
    done = hsd("generate", *options, "a")
    assert (done.code, done.out, done.err) == (2, "", said)


@pytest.mark.parametrize(
    "algorithm", breadth(["auto", "slem", "slrs", "tli", "union", "lookup"], quick=["auto", "slem", "tli"])
)
@pytest.mark.parametrize(
    ("settings", "lookahead"), [(SamplingSettings(), 3), (SamplingSettings(0.8), None)], ids=["greedy", "sampled"]
)
def test_the_text_is_that_of_plain_decoding(
    pair: tuple[LoadedModel, LoadedModel], algorithm: str, settings: SamplingSettings, lookahead: int | None
) -> None:
    engine = Engine(*pair)
    request = {"max_new_tokens": 24, "sampling": settings, "seed": 4}
    plain = ids_of(engine.generate(Request(BEGINNING, algorithm="ar", **request)))
    for _ in range(2):  # the second time both have read the beginning
        generation = engine.generate(
            Request(BEGINNING, algorithm=algorithm, lookahead=lookahead, parallel=True, **request)
        )
        assert ids_of(generation) == plain
    assert not drafters_at_work()


def test_sd_too(letters: str) -> None:
    engine = Engine(load_model(letters), load_model(letters))
    ids, generation = written(engine, algorithm="sd", lookahead=3, parallel=True)
    assert ids == written(engine, algorithm="ar")[0]
    # All is accepted: after the first draft of 3 each pass finds what was drafted during the one before.
    assert generation.statistics.accepted == generation.statistics.drafted == 30 - generation.statistics.iterations
    assert generation.statistics.iterations < 30 / 3


def test_drafts_under_rejection_are_accepted_as_ever(letters: str, pairs: str) -> None:
    engine = Engine(load_model(letters), load_model(pairs))
    _, generation = written(engine, algorithm="slrs", lookahead=4, sampling=SamplingSettings(0.5), parallel=True)
    assert generation.verification == "rejection"
    assert generation.statistics.accepted > 10


def test_the_command_writes_the_same_text_and_counts_what_it_drafted(letters: str, pairs: str) -> None:
    asked = ["generate", "-t", letters, "-d", pairs, "-a", "slem", "--lookahead", 4, "-n", 30, "a", "--json"]
    done = json.loads(hsd(*asked, "--parallel").out)
    assert done["text"] == TEXT
    assert done["drafted"] >= done["accepted"] > 10


@pytest.mark.parametrize(
    "options", [["-t", "embedded:target"], ["-a", "lookup"], ["-a", "ar"], ["-t", "embedded:target", "-a", "ar"]]
)
def test_it_needs_a_drafter_model(options: list[str]) -> None:
    done = hsd("generate", "--parallel", *options, "a")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("hsd: --parallel is for a drafter model at work; add --draft MODEL, and leave ")
    assert done.err.count("\n") == 1


def dying_after(steps: int) -> Callable[[int], None]:
    left = iter(range(steps))

    def see(_: int) -> None:
        if next(left, None) is None:
            raise RuntimeError("kernel launch failed")

    return see


@pytest.mark.parametrize(("steps", "options"), [(0, []), (1, []), (4, ["--lookahead", 4]), (9, ["--lookahead", 4])])
def test_a_drafter_that_dies_costs_no_text_and_is_told_once(
    letters: str, pairs: str, passes: Callable[[str, Callable[[int], None]], None], steps: int, options: list[object]
) -> None:
    passes(pairs, dying_after(steps))
    asked = ["generate", "-t", letters, "-d", pairs, "-a", "slem", *options, "-n", 30, "a", "--parallel", "--no-stats"]
    done = hsd(*asked)
    assert (done.code, done.out) == (0, TEXT)
    assert done.err == f"{NOTICE}RuntimeError: kernel launch failed\n"
    strict = hsd(*asked, "--strict")
    assert strict.code == 1
    assert strict.err == "hsd: the drafter failed: RuntimeError: kernel launch failed\n"
    assert not drafters_at_work()


@pytest.mark.parametrize("most", [1, 2, 4])
def test_drafts_get_as_short_as_the_memory_wants_them(
    letters: str, pairs: str, passes: Callable[[str, Callable[[int], None]], None], most: int
) -> None:
    def see(keep: int) -> None:
        if keep > most:
            raise torch.OutOfMemoryError

    engine = Engine(load_model(letters), load_model(pairs), strict=False)
    passes(letters, see)
    ids, generation = written(engine, algorithm="slem", lookahead=9, parallel=True)
    assert ids == written(Engine(load_model(letters), None))[0]
    assert len(generation.statistics.drafted_at) <= most - 1
    assert generation.statistics.drafter_failure is None


def test_an_interrupt_keeps_what_was_written_and_the_next_text_is_whole(
    letters: str, pairs: str, passes: Callable[[str, Callable[[int], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(load_model(letters), load_model(pairs))
    whole, _ = written(engine, algorithm="slem", parallel=True)
    left = iter(range(4))

    def see(_: int) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context():
        passes(letters, see)
        generation = engine.generate(Request("b", max_new_tokens=30, algorithm="slem", parallel=True))
        with pytest.raises(KeyboardInterrupt):
            ids_of(generation)
    monkeypatch.undo()
    assert not drafters_at_work()
    assert written(engine, algorithm="slem", parallel=True)[0] == whole


def test_a_batch_has_its_records_drafted_in_parallel(letters: str, pairs: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "a", "algorithm": "ar"}\n')
    done = hsd(
        "generate", "-t", letters, "-d", pairs, "-n", 30, "-i", tmp_path / "in.jsonl", "--parallel", "--no-stats"
    )
    assert [json.loads(line)["text"] for line in done.out.splitlines()] == [TEXT] * 2
    assert done.code == 0


def test_hsd_verify_checks_it(letters: str, pairs: str) -> None:
    asked = ["verify", letters, pairs, "--parallel", "-n", 12, "--samples", 60, "-a", "slem", "-a", "slrs"]
    done = hsd(*asked, "--json", "-q")
    assert done.code == 0
    report = json.loads(done.out)
    assert report["parallel"]
    assert report["defects"] == 0
    assert all(comparison["accepted"] > 0 for comparison in report["comparisons"])
    assert hsd(*asked, "-q").out.partition("\n")[0].endswith("lookahead 4, in parallel")
