"""The report of `hsd bench` as a page with plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from hsd_cli.ui.bench_report import PARTS, PHASES, BenchReport, Place, Result, Spread
from hsd_cli.ui.bench_table import costs, part_of, percent, spread
from hsd_cli.ui.plan_figures import size
from hsd_cli.ui.terminal import visible

# Of the drawings, in their own units: bars begin at LEFT and are at most WIDTH long, each in a row of its own.
LEFT, WIDTH, ROW = 130.0, 700.0, 26.0
HEIGHT = 180.0  # of the acceptance plot


@dataclass(frozen=True)
class SpeedBar:
    """A speed-up: the bar ends at the median, the line goes from ``low`` to ``high``."""

    name: str
    y: float
    median: float
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class SpeedPlot:
    """``plain`` is where plain decoding's bar ends."""

    bars: tuple[SpeedBar, ...]
    plain: float
    height: float


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Curve:
    """Acceptance by place. ``number`` tells the colour."""

    name: str
    number: int
    points: tuple[Point, ...]

    @property
    def line(self) -> str:
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)


@dataclass(frozen=True)
class Part:
    """A phase's share of the decoding time."""

    phase: str
    x: float
    width: float
    title: str


@dataclass(frozen=True)
class SplitBar:
    name: str
    y: float
    parts: tuple[Part, ...]


def render_page(report: BenchReport) -> str:
    """One HTML page that needs nothing but itself. Names of models and files are shown and never obeyed."""
    environment = Environment(
        loader=PackageLoader("hsd_cli", "ui"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"visible": visible, "percent": percent, "size": size, "spread": spread, "part_of": part_of}
    return environment.get_template("bench_page.html").render(
        report=report,
        phases=PHASES,
        parts=PARTS,
        costs=costs,
        speed_plot=speed_plot,
        curves=curves,
        split_bars=split_bars,
        left=LEFT,
        width=WIDTH,
        row=ROW,
        height=HEIGHT,
    )


def speed_plot(results: Sequence[Result]) -> SpeedPlot:
    speed_ups = [result.figures.speed_up for result in results]
    scale = WIDTH / max(1.0, *(found.highest for found in speed_ups))
    bars = tuple(
        SpeedBar(
            result.contender,
            index * ROW,
            found.median * scale,
            LEFT + found.lowest * scale,
            LEFT + found.highest * scale,
            f"{found.median:.2f} ({_range(found)})",
        )
        for index, (result, found) in enumerate(zip(results, speed_ups, strict=True))
    )
    return SpeedPlot(bars, LEFT + scale, ROW * len(bars))


def curves(results: Sequence[Result]) -> tuple[Curve, ...]:
    """Of those that drafted."""
    longest = max((len(result.figures.acceptance_by_place) for result in results), default=0)
    return tuple(
        Curve(result.contender, number, _points(result.figures.acceptance_by_place, longest))
        for number, result in enumerate(results)
        if result.figures.acceptance_by_place
    )


def split_bars(results: Sequence[Result]) -> tuple[SplitBar, ...]:
    """Of those whose phases were timed."""
    timed = [(result.contender, result.figures.split) for result in results if result.figures.split is not None]
    bars = []
    for index, (name, split) in enumerate(timed):
        x, parts = LEFT, []
        for phase in PHASES:
            share = max(0.0, split[phase])
            parts.append(Part(phase, x, share * WIDTH, f"{name}: {phase} {share:.1%}"))
            x += share * WIDTH
        bars.append(SplitBar(name, index * ROW, tuple(parts)))
    return tuple(bars)


def _points(places: Sequence[Place], longest: int) -> tuple[Point, ...]:
    step = WIDTH / max(1, longest - 1)
    return tuple(
        Point(
            LEFT + index * step,
            HEIGHT * (1 - place.accepted / place.drafted),
            f"place {index + 1}: {place.accepted} of {place.drafted}",
        )
        for index, place in enumerate(places)
    )


def _range(found: Spread) -> str:
    return f"{found.lowest:.2f}–{found.highest:.2f}"
