"""A plan with measurements in the place of assumptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from hsd_cli.bench.measure_pair import measure_pair
from hsd_cli.engine import Engine
from hsd_cli.planner.memory import Placement, remember
from hsd_cli.planner.pair_plan import PairPlan
from hsd_cli.planner.record import KINDS, Kind
from hsd_cli.planner.selection import candidates
from hsd_cli.planner.verdict import too_large
from hsd_cli.runtime.device import out_of_memory
from hsd_cli.runtime.lack_of_memory import naming_lack_of_memory
from hsd_cli.runtime.loading import LoadedModel, load_model


class PlanMeasurer:
    """Loads drafters one after the other, and their target once."""

    def __init__(self, prompts: Sequence[str], on_step: Callable[[str], None], trust_remote_code: bool = False) -> None:
        self._prompts = prompts
        self._on_step = on_step
        self._trust_remote_code = trust_remote_code
        self._target: LoadedModel | None = None

    def measured(self, plan: PairPlan) -> PairPlan:
        """What is measured is remembered. A pair that the device has no room for is left as it is."""
        if too_large(plan):
            return plan
        target, drafter = plan.placements
        try:
            with naming_lack_of_memory():
                self._target = self._target or self._load(target)
                engine = Engine(self._target, self._load(drafter))
                record = measure_pair(engine, _algorithms(plan), self._prompts, self._on_step)
        except torch.OutOfMemoryError:
            raise out_of_memory(target.device) from None
        self._on_step("remembering")
        with suppress(OSError):  # a full or read-only disk costs the time to measure again, nothing else
            remember(target, drafter, record)
        return replace(plan, record=record)

    def _load(self, placement: Placement) -> LoadedModel:
        self._on_step(f"loading {placement.name}")
        dtype = str(placement.dtype).removeprefix("torch.")
        device, trust = str(placement.device), self._trust_remote_code
        return load_model(placement.name, device, dtype, placement.quantization, trust_remote_code=trust)


def _algorithms(plan: PairPlan) -> dict[Kind, list[str]]:
    """What `auto` chooses from."""
    vocabularies = plan.target.vocabulary, plan.drafter.vocabulary
    return {kind: ["lookup", *candidates(*vocabularies, greedy=kind == "greedy")] for kind in KINDS}
