"""From samples to figures: sums alone, no clocks and no models.

Efficiency is what decoding would take with zero overhead, over what it took. Zero overhead: the sum over iterations of
one target pass over 1 + drafted tokens and of the drafter's steps, each at the measured cost of a bare forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median, quantiles

from hsd_cli.decoding.loop import PLAIN
from hsd_cli.ui.bench_report import PARTS, Costs, Figures, Place, Result, Sample, Spread

Round = Mapping[str, Sample]  # one sample of every contender, on one prompt


def results(rounds: Sequence[Round], costs: Costs, weights: tuple[int, int]) -> tuple[Result, ...]:
    """One per contender. ``weights``: bytes that a pass of the target and one of the drafter read."""
    plain = by_repeat([each[PLAIN] for each in rounds])
    found = []
    for name in rounds[0]:
        samples = [each[name] for each in rounds]
        found.append(Result(name, figures(by_repeat(samples), plain, costs, weights), tuple(samples)))
    return tuple(found)


def figures(
    repeats: Sequence[Sequence[Sample]],
    plain: Sequence[Sequence[Sample]],
    costs: Costs,
    weights: tuple[int, int],
) -> Figures:
    """Of one contender's samples and plain decoding's, by repeat."""
    samples = [sample for repeat in repeats for sample in repeat]
    iterations = [iteration for sample in samples for iteration in sample.iterations]
    drafted = sum(drafted for drafted, _ in iterations)
    ratios = [speed(ours) / speed(base) for ours, base in zip(repeats, plain, strict=True)]
    return Figures(
        tokens_per_second=spread([speed(repeat) for repeat in repeats]),
        speed_up=spread(ratios),
        acceptance=sum(accepted for _, accepted in iterations) / drafted if drafted else None,
        acceptance_by_place=places(iterations),
        tokens_per_iteration=sum(sample.tokens for sample in samples) / len(iterations),
        first_seconds=spread([sample.first_seconds for sample in samples]),
        split=split(samples),
        profile=profile(samples),
        peak_memory=max((sample.peak_memory for sample in samples if sample.peak_memory is not None), default=None),
        bandwidth=bandwidth(samples, weights),
        efficiency=efficiency(repeats, costs),
    )


def by_repeat(samples: Sequence[Sample]) -> list[list[Sample]]:
    repeats: dict[int, list[Sample]] = {}
    for sample in samples:
        repeats.setdefault(sample.repeat, []).append(sample)
    return list(repeats.values())


def speed(samples: Sequence[Sample]) -> float:
    """Decoded tokens per second."""
    tokens = sum(sample.tokens - sample.first_tokens for sample in samples)
    return tokens / sum(sample.decode_seconds for sample in samples)


def places(iterations: Sequence[tuple[int, int]]) -> tuple[Place, ...]:
    longest = max((drafted for drafted, _ in iterations), default=0)
    return tuple(
        Place(sum(drafted > place for drafted, _ in iterations), sum(accepted > place for _, accepted in iterations))
        for place in range(longest)
    )


def split(samples: Sequence[Sample]) -> dict[str, float] | None:
    """Shares of the decoding time by phase, and what is in none of them as overhead."""
    total = sum(sample.decode_seconds for sample in samples)
    known = [sample.phases for sample in samples if sample.phases is not None]
    if not known:
        return None
    shares = {name: sum(phases[name] for phases in known) / total for name in known[0]}
    return shares | {"overhead": 1 - sum(shares.values())}


def profile(samples: Sequence[Sample]) -> dict[str, float] | None:
    """Mean seconds per iteration of each part."""
    known = [(sample.phases, sample.passes) for sample in samples if sample.phases is not None and sample.passes]
    if len(known) < len(samples):
        return None
    target, drafter = (sum(passes[role] for _, passes in known) for role in ("target", "drafter"))
    draft, verify, translate = (sum(phases[name] for phases, _ in known) for name in ("draft", "verify", "translate"))
    rest = sum(sample.decode_seconds for sample in samples) - draft - verify - translate
    parts = (target, verify - target, drafter, draft - drafter, translate, rest)
    iterations = sum(len(sample.iterations) - 1 for sample in samples)
    return dict(zip(PARTS, (part / iterations for part in parts), strict=True))


def bandwidth(samples: Sequence[Sample], weights: tuple[int, int]) -> float:
    """Bytes of weights per second of decoding."""
    passes = sum(len(sample.iterations) - 1 for sample in samples), sum(sample.steps for sample in samples)
    read = sum(count * size for count, size in zip(passes, weights, strict=True))
    return read / sum(sample.decode_seconds for sample in samples)


def efficiency(repeats: Sequence[Sequence[Sample]], costs: Costs) -> Spread | None:
    """Seconds of decoding with zero overhead, over measured seconds; ``None`` if a pass was too long to be timed."""
    longest = max(drafted for repeat in repeats for sample in repeat for drafted, _ in sample.iterations)
    if longest >= len(costs.target_passes):
        return None
    return spread([bare_seconds(repeat, costs) / sum(s.decode_seconds for s in repeat) for repeat in repeats])


def bare_seconds(samples: Sequence[Sample], costs: Costs) -> float:
    passes = sum(costs.target_passes[drafted] for sample in samples for drafted, _ in sample.iterations[1:])
    return passes + sum(sample.steps for sample in samples) * (costs.drafter_step or 0.0)


def spread(values: Sequence[float]) -> Spread:
    lower, _, upper = quantiles([*values] * 2 if len(values) == 1 else values, n=4, method="inclusive")
    return Spread(median(values), min(values), lower, upper, max(values))
