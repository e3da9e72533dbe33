"""`auto` starts from what `hsd plan --measure` found out, and finds out for itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from string import ascii_letters

import pytest
import torch

from hsd_cli.engine import Engine, Request
from hsd_cli.planner.controller import FIRST_PAUSE
from hsd_cli.planner.memory import Placement, remember
from hsd_cli.planner.prior import Prior, measured_prior
from hsd_cli.planner.record import PairRecord, Trial
from hsd_cli.runtime.loading import LoadedModel, load_model
from tests.cli import checkpoint


def record(*, step: float, accepted: int) -> PairRecord:
    """Of a drafter whose step takes ``step`` target passes and of whose tokens ``accepted`` percent are accepted."""
    trial = Trial(iterations=200, drafts=100, drafted=100, tested=100, accepted=accepted, draft_seconds=0.02 * step)
    return PairRecord((0.02,) * 9, 0.02 * step, {"sd": trial}, {"sd": trial})


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LoadedModel, LoadedModel]:
    """Equally large, so that nobody would expect anything of the drafter; and no text repeats itself soon."""
    monkeypatch.setenv("HSD_CACHE", str(tmp_path / "cache"))
    target, drafter = (load_model(checkpoint(tmp_path / name, ascii_letters), "cpu") for name in ("target", "drafter"))
    return target, drafter


def iterations(pair: tuple[LoadedModel, LoadedModel], measured: PairRecord | None, tokens: int) -> Counter[str]:
    """By algorithm, of greedy text under `auto`."""
    if measured is not None:
        target, drafter = (Placement(side.name, torch.device("cpu"), torch.float32) for side in pair)
        remember(target, drafter, measured)
    generation = Engine(*pair).generate(Request("abc", max_new_tokens=tokens))
    assert "".join(commit.text for commit in generation.commits) == ascii_letters[3 : 3 + tokens]
    return generation.statistics.iterations_by


def test_a_drafter_that_was_measured_to_pay_drafts_though_its_size_speaks_against_it(
    pair: tuple[LoadedModel, LoadedModel],
) -> None:
    assert set(iterations(pair, None, 20)) == {"ar"}
    assert iterations(pair, record(step=0.1, accepted=90), 20)["sd"] > 0


@pytest.mark.parametrize("measured", [record(step=0.9, accepted=100), record(step=0.5, accepted=0)])
def test_a_drafter_that_was_measured_not_to_pay_does_not_draft(
    pair: tuple[LoadedModel, LoadedModel], measured: PairRecord
) -> None:
    assert set(iterations(pair, measured, FIRST_PAUSE)) == {"ar"}


def test_what_was_measured_of_other_texts_is_put_to_the_test_after_a_while(
    pair: tuple[LoadedModel, LoadedModel],
) -> None:
    assert iterations(pair, record(step=0.5, accepted=0), FIRST_PAUSE + 10)["sd"] > 0


def test_a_step_costs_what_belongs_to_it_with_the_cheapest_algorithm() -> None:
    cheap, dear = (
        Trial(iterations=9, drafts=9, drafted=9, tested=9, accepted=accepted, draft_seconds=seconds)
        for accepted, seconds in ((3, 0.2), (6, 0.3))
    )
    measured = PairRecord((2.0, 2.0), 0.1, {"lookup": cheap, "slem": cheap, "tli": dear}, {})
    assert measured_prior(measured, "greedy") == Prior(0.1, {"slem": 3 / 9, "tli": 6 / 9})
    assert measured_prior(measured, "sampled") == Prior(0.05)
