"""Which drafter works on a text: the algorithm that was asked for, or a controller of those that suit the pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import torch

from hsd_cli.drafting.ar import NoDrafter
from hsd_cli.drafting.lookup import LookupDrafter
from hsd_cli.drafting.protocol import Drafter
from hsd_cli.drafting.registry import ALGORITHMS, Pair
from hsd_cli.errors import UsageError
from hsd_cli.planner.controller import Controller
from hsd_cli.planner.costs import Costs
from hsd_cli.planner.experience import Experience
from hsd_cli.planner.pace import Pace
from hsd_cli.planner.prior import Prior
from hsd_cli.planner.rhythm import DraftingRhythm
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.vocab.report import MOSTLY_SHARED, sample_text, share_of_text
from hsd_cli.vocab.vocabulary import Vocabulary

TOO_LARGE = 0.8  # a drafter that costs so much of the target cannot pay, whatever is accepted of it


def make_drafter(
    algorithm: str,
    pair: Pair | None,
    device: torch.device,
    clock: PhaseClock,
    *,
    greedy: bool,
    fixed_length: bool,
    prior: Prior,
    experience: Experience,
) -> Drafter:
    """Raises ``UsageError`` where the algorithm does not suit the pair."""
    plain = NoDrafter(device)
    if algorithm == "ar":
        return plain
    automatic = algorithm == "auto"
    if fixed_length and not automatic:
        return LookupDrafter(device) if algorithm == "lookup" else _make(algorithm, pair)
    pace = Pace(experience.costs, fixed_length, experience.calibrations)
    if pair is not None:
        pair = replace(pair, patience=pace)
    makers: dict[str, Callable[[], Drafter]] = {}
    too_dear = prior.step if automatic and pair is not None and prior.step >= TOO_LARGE else None
    if automatic and pair is not None and too_dear is None:
        names = candidates(pair.target.vocabulary, pair.drafter.vocabulary, greedy)
        makers = {name: partial(_make, name, pair) for name in names}
    elif algorithm not in ("auto", "lookup"):
        drafter = _make(algorithm, pair)  # now, so that a pair that it does not suit is refused before the first token
        makers = {algorithm: lambda: drafter}
    lookup = LookupDrafter(device) if algorithm in ("auto", "lookup") else None
    return Controller(
        makers,
        lookup,
        plain,
        pace,
        experience,
        clock,
        guard=automatic,
        fixed_length=fixed_length,
        acceptance=prior.acceptance,
        too_dear=too_dear,
    )


def make_parallel_drafter(
    algorithm: str, pair: Pair, costs: Costs, *, greedy: bool, fixed_length: bool, prior: Prior, targets: int = 1
) -> tuple[Drafter, DraftingRhythm]:
    """To work beside the target, or ``targets`` copies of it; `auto` is the algorithm of which most was accepted, else
    the best guess.

    Raises ``UsageError`` where the algorithm does not suit the pair.
    """
    if algorithm == "auto":
        names = candidates(pair.target.vocabulary, pair.drafter.vocabulary, greedy)
        algorithm = max(names, key=lambda name: prior.acceptance.get(name, 0.0))
    rhythm = DraftingRhythm(algorithm, costs, pair.clock, fixed_length, targets)
    return _make(algorithm, replace(pair, patience=rhythm)), rhythm


@lru_cache(maxsize=8)  # one text follows another with the same pair
def candidates(target: Vocabulary, drafter: Vocabulary, greedy: bool) -> list[str]:
    """The algorithms with a model that suit the two vocabularies and the way of sampling, the best guess first."""
    if target.same_tokens(drafter):
        return ["sd"]
    mostly_shared = share_of_text(target, drafter, sample_text()) >= MOSTLY_SHARED
    return ["slem" if greedy else "slrs", *(["tli"] if mostly_shared else [])]


def _make(algorithm: str, pair: Pair | None) -> Drafter:
    if pair is None:
        raise UsageError(f"--algorithm {algorithm} needs a drafter; add --draft MODEL")
    return ALGORITHMS[algorithm](pair)
