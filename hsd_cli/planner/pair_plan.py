"""What to expect of a pair, from its tokenizers and configurations, and from measurements where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch

from hsd_cli.errors import UsageError
from hsd_cli.planner.footprint import Footprint, read_footprint
from hsd_cli.planner.machine import memory_by_device
from hsd_cli.planner.memory import Kind, PairRecord, Placement
from hsd_cli.planner.speedup import Prediction, RelativeCosts, break_even, flat_costs, predict
from hsd_cli.runtime.device import resolve_device, resolve_dtype
from hsd_cli.vocab.report import Report, compare, sample_text
from hsd_cli.vocab.source import read_vocabulary
from hsd_cli.vocab.vocabulary import Vocabulary

# Assumptions, for as long as nothing is measured; the report says that they are.
ASSUMED_ACCEPTANCE = (0.4, 0.8)
# A CPU's pass over several tokens multiplies matrices where one token needs vectors: 1.5 to 2.6 times the time in a
# trial with 125 M and 249 M parameters in float32 on one core of an AMD EPYC, and 1.04 with the 6 M of the embedded
# target. On an accelerator reading the weights takes all the time, so that it costs as much as a pass over one.
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


@dataclass(frozen=True)
class PairPlan:
    """All that is known of a pair before it runs.

    ``cost`` is that of one drafted token, predicted, in target passes over one token: the bytes that a drafter step
    reads over the target's (``bytes_ratio``), times the drafter tokens per target token (``steps_per_token``).
    ``worst``/``best`` are the predicted speed-ups at both ends of what is assumed.
    """

    target: ModelFacts
    drafter: ModelFacts
    placements: tuple[Placement, Placement]
    vocabularies: Report
    context: int
    demands: tuple[Demand, ...]
    bytes_ratio: float
    steps_per_token: float
    slowest_pass: float
    record: PairRecord | None = None

    @property
    def cost(self) -> float:
        return self.bytes_ratio * self.steps_per_token

    @property
    def fast(self) -> RelativeCosts:
        """A target pass over several tokens costs as much as one over a single token."""
        return flat_costs(self.cost, 1.0)

    @property
    def slow(self) -> RelativeCosts:
        """It costs as much as is assumed of this device at most."""
        return flat_costs(self.cost, self.slowest_pass)

    @property
    def worst(self) -> Prediction:
        return predict(ASSUMED_ACCEPTANCE[0], self.slow)

    @property
    def best(self) -> Prediction:
        return predict(ASSUMED_ACCEPTANCE[1], self.fast)

    @property
    def break_even(self) -> tuple[float | None, float | None]:
        """The acceptance from which on drafting pays: if passes over several tokens are fast, and if they are slow."""
        return break_even(self.fast), break_even(self.slow)

    @property
    def outcomes(self) -> list[Outcome]:
        """Of the measurement, if there is one, the fastest first."""
        return [] if self.record is None else sorted(_outcomes(self.record), key=lambda o: -o.prediction.speed_up)

    @property
    def expected_speed_up(self) -> float:
        """The best that was measured, or the middle of what is predicted: to compare drafters by."""
        outcomes = self.outcomes
        return outcomes[0].prediction.speed_up if outcomes else (self.worst.speed_up + self.best.speed_up) / 2


def read_facts(name: str) -> ModelFacts:
    """Raises ``HsdError`` for what `hsd` cannot run or read."""
    return ModelFacts(name, read_footprint(name), read_vocabulary(name))


def plan_pair(target: ModelFacts, drafter: ModelFacts, context: int | None, device: str, dtype: str) -> PairPlan:
    """``context`` in target tokens; ``None`` is the usual one, or the target's if that is shorter."""
    where = resolve_device(device)
    number = resolve_dtype(dtype, where)
    report = compare(target.vocabulary, drafter.vocabulary, sample_text())
    steps = 1.0 if report.same else report.a.bytes_per_token / report.b.bytes_per_token
    length = _context(target, context)
    drafter_length = min(ceil(length * steps), drafter.footprint.context_size)
    return PairPlan(
        target=target,
        drafter=drafter,
        placements=(Placement(target.name, where, number), Placement(drafter.name, where, number)),
        vocabularies=report,
        context=length,
        demands=tuple(
            _demand(name, memory, resolve_dtype(dtype, torch.device(name)), (target, length), (drafter, drafter_length))
            for name, memory in memory_by_device().items()
        ),
        bytes_ratio=drafter.footprint.read_per_token / target.footprint.read_per_token,
        steps_per_token=steps,
        slowest_pass=CPU_PASS if where.type == "cpu" else 1.0,
    )


def _context(target: ModelFacts, wanted: int | None) -> int:
    longest = target.footprint.context_size
    if wanted is not None and wanted > longest:
        raise UsageError(f"the context of {target.name!r} holds {longest} tokens; give --context at most that")
    return wanted or min(USUAL_CONTEXT, longest)


def _demand(
    device: str, memory: int, dtype: torch.dtype, target: tuple[ModelFacts, int], drafter: tuple[ModelFacts, int]
) -> Demand:
    sizes = (
        number * dtype.itemsize
        for facts, length in (target, drafter)
        for number in (facts.footprint.parameters, facts.footprint.cache_per_token * length)
    )
    return Demand(device, memory, dtype, *sizes)


def _outcomes(record: PairRecord) -> list[Outcome]:
    kinds: tuple[Kind, ...] = ("greedy", "sampled")
    return [
        Outcome(algorithm, kind, predict(trial.acceptance, record.costs(trial), trial.share))
        for kind in kinds
        for algorithm, trial in record.trials(kind).items()
    ]
