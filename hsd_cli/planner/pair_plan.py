"""What to expect of a pair, from its tokenizers and configurations, and from measurements where there are any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import torch

from hsd_cli.errors import UsageError
from hsd_cli.planner.footprint import Footprint, read_footprint
from hsd_cli.planner.machine import memory_by_device
from hsd_cli.planner.memory import Placement, recall
from hsd_cli.planner.record import KINDS, Kind, PairRecord
from hsd_cli.planner.speedup import Prediction, RelativeCosts, break_even, flat_costs, predict
from hsd_cli.runtime.device import resolve_device, resolve_dtype
from hsd_cli.vocab.report import Report, compare, sample_text
from hsd_cli.vocab.source import read_vocabulary
from hsd_cli.vocab.vocabulary import Vocabulary

# Assumptions, for as long as nothing is measured; the report says that they are.
ASSUMED_ACCEPTANCE = (0.4, 0.8)
# A CPU's pass over several tokens multiplies matrices where one token needs vectors: 1.5 to 2.6 times the time in a
# trial with 125 M and 249 M parameters in float32 on one core, and 1.04 with the 6 M of the embedded target. An
# accelerator's takes the time to read the weights, however many the tokens.
CPU_PASS = 2.0
USUAL_CONTEXT = 4096


@dataclass(frozen=True)
class ModelFacts:
    """What the files of a model tell without its weights."""

    name: str
    footprint: Footprint
    vocabulary: Vocabulary


@dataclass(frozen=True)
class Demand:
    """Bytes of weights and KV cache in one device's dtype, against the memory that the device has."""

    device: str
    memory: int
    dtype: torch.dtype
    target_weights: int
    target_cache: int
    drafter_weights: int
    drafter_cache: int

    @property
    def target(self) -> int:
        return self.target_weights + self.target_cache

    @property
    def both(self) -> int:
        return self.target + self.drafter_weights + self.drafter_cache


@dataclass(frozen=True)
class Outcome:
    """What one algorithm's measured acceptance and costs predict."""

    algorithm: str
    kind: Kind
    prediction: Prediction

    @property
    def needs_drafter(self) -> bool:
        return self.algorithm != "lookup"

    @property
    def speed_up(self) -> float:
        return self.prediction.speed_up


@dataclass(frozen=True)
class PairPlan:
    """All that is known of a pair before it runs.

    ``step_ratios``: what a drafter step takes as a share of a target pass over one token, at least (the bytes that
    both read) and at most. ``slowest_pass``: the same at most of a target pass over several tokens.
    ``worst``/``best`` are the predicted speed-ups at both ends of what is assumed.
    """

    target: ModelFacts
    drafter: ModelFacts
    placements: tuple[Placement, Placement]
    vocabularies: Report
    context: int
    demands: tuple[Demand, ...]
    step_ratios: tuple[float, float]
    steps_per_token: float
    slowest_pass: float
    record: PairRecord | None = None

    @property
    def cost(self) -> tuple[float, float]:
        """Of one drafted token in target passes, at least and at most, as predicted."""
        low, high = self.step_ratios
        return low * self.steps_per_token, high * self.steps_per_token

    @property
    def fast(self) -> RelativeCosts:
        """All costs at their least: a target pass over several tokens takes as long as one over a single token."""
        return flat_costs(self.cost[0], 1.0)

    @property
    def slow(self) -> RelativeCosts:
        """All costs at their most."""
        return flat_costs(self.cost[1], self.slowest_pass)

    @property
    def worst(self) -> Prediction:
        return predict(ASSUMED_ACCEPTANCE[0], self.slow)

    @property
    def best(self) -> Prediction:
        return predict(ASSUMED_ACCEPTANCE[1], self.fast)

    @property
    def break_even(self) -> tuple[float | None, float | None]:
        """The acceptance from which on drafting pays, at the least and at the most costs."""
        return break_even(self.fast), break_even(self.slow)

    def recalled(self) -> PairPlan:
        """With what an earlier run measured, if one did."""
        return replace(self, record=recall(*self.placements))

    @property
    def outcomes(self) -> list[Outcome]:
        """Of the measurement, if there is one, the fastest first."""
        return [] if self.record is None else sorted(_outcomes(self.record), key=lambda outcome: -outcome.speed_up)

    @property
    def expected_speed_up(self) -> float:
        """To compare drafters by: the best that was measured with the drafter, or the middle of what is predicted."""
        if self.record is None:
            return (self.worst.speed_up + self.best.speed_up) / 2
        return max((outcome.speed_up for outcome in self.outcomes if outcome.needs_drafter), default=0.0)


def read_facts(name: str, trust_remote_code: bool = False) -> ModelFacts:
    """Raises ``HsdError`` for what `hsd` cannot run or read."""
    footprint = read_footprint(name, trust_remote_code)
    return ModelFacts(name, footprint, read_vocabulary(name, trust_remote_code=trust_remote_code))


def plan_pair(
    target: ModelFacts,
    drafter: ModelFacts,
    context: int | None,
    device: str,
    dtype: str,
    quantizations: tuple[str | None, str | None] = (None, None),
) -> PairPlan:
    """``context`` in target tokens; ``None`` is the usual one, or the target's if that is shorter."""
    where = resolve_device(device)
    number = resolve_dtype(dtype, where)
    placements = (
        Placement(target.name, where, number, quantizations[0]),
        Placement(drafter.name, where, number, quantizations[1]),
    )
    report = compare(target.vocabulary, drafter.vocabulary, sample_text())
    steps = 1.0 if report.same else report.a.bytes_per_token / report.b.bytes_per_token
    length = _context(target, context)
    drafter_length = min(ceil(length * steps), drafter.footprint.context_size)
    return PairPlan(
        target=target,
        drafter=drafter,
        placements=placements,
        vocabularies=report,
        context=length,
        demands=tuple(
            _demand(
                name,
                memory,
                resolve_dtype(dtype, torch.device(name)),
                (target, length, quantizations[0]),
                (drafter, drafter_length, quantizations[1]),
            )
            for name, memory in memory_by_device().items()
        ),
        step_ratios=_step_ratios(target.footprint, drafter.footprint, placements),
        steps_per_token=steps,
        slowest_pass=CPU_PASS if where.type == "cpu" else 1.0,
    )


def _step_ratios(target: Footprint, drafter: Footprint, placements: tuple[Placement, Placement]) -> tuple[float, float]:
    """By the bytes read; on an accelerator up to what launching kernels takes small models: that goes by the layers."""
    of_target, of_drafter = (
        footprint.weight_bytes(footprint.read_per_token, placement.dtype, placement.quantization)
        for footprint, placement in zip((target, drafter), placements, strict=True)
    )
    by_bytes = of_drafter / of_target
    return by_bytes, by_bytes if placements[0].device.type == "cpu" else max(by_bytes, drafter.layers / target.layers)


def _context(target: ModelFacts, wanted: int | None) -> int:
    longest = target.footprint.context_size
    if wanted is not None and wanted > longest:
        raise UsageError(f"the context of {target.name!r} holds {longest} tokens; give --context at most that")
    return wanted or min(USUAL_CONTEXT, longest)


Load = tuple[ModelFacts, int, str | None]  # a model, the tokens in its cache, and how it is quantized


def _demand(device: str, memory: int, dtype: torch.dtype, target: Load, drafter: Load) -> Demand:
    sizes = (
        round(size)
        for facts, length, quantization in (target, drafter)
        for size in (
            facts.footprint.weight_bytes(facts.footprint.parameters, dtype, quantization),
            facts.footprint.cache(length) * dtype.itemsize,
        )
    )
    return Demand(device, memory, dtype, *sizes)


def _outcomes(record: PairRecord) -> list[Outcome]:
    return [
        Outcome(algorithm, kind, predict(trial.acceptance, record.costs(trial), trial.share))
        for kind in KINDS
        for algorithm, trial in record.trials(kind).items()
    ]
