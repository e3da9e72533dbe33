"""The report of `hsd bench` for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hsd_cli.ui.bench_report import PARTS, PHASES, BenchReport, Comparison, Place, Spread
from hsd_cli.ui.plan_figures import size
from hsd_cli.ui.terminal import visible

PLACES = 4  # of the drafts, in the table; all of them are in the other reports


def print_bench(report: BenchReport) -> None:
    """Tables for each kind of text and temperature: how fast, where the time goes, and what an iteration is made of."""
    console = Console(highlight=False)
    drafter = f" with {report.drafter}" if report.drafter else ""
    _line(console, f"{report.target} ({report.dtype}, {report.device}){drafter}")
    _line(console, f"{report.tokens} tokens, lookahead {report.lookahead}, {report.repeats} repeats", "dim")
    for algorithm, reason in report.unfit.items():
        _line(console, f"{algorithm} does not fit: {reason}")
    for comparison in report.comparisons:
        _line(console, f"\n{comparison.task}, temperature {comparison.temperature:g}", "bold")
        console.print(_speeds(comparison))
        console.print(_times(comparison))
        if any(result.figures.profile for result in comparison.results):
            console.print(_profiles(comparison))
        _line(console, costs(comparison), "dim")
    for note in report.notes:
        _line(console, f"\n{note}.")
    if report.process_memory is not None:
        _line(console, f"\nThe process held at most {size(report.process_memory)} of RAM.", "dim")
    if not report.complete:
        _line(console, "\nInterrupted: these are the rounds that every contender ended.", "bold yellow")


def costs(comparison: Comparison) -> str:
    """What the bare forward passes took, in words."""
    passes = comparison.costs.target_passes
    words = f"bare passes: target {1000 * passes[0]:.2f} ms, over {len(passes)} tokens {1000 * passes[-1]:.2f} ms"
    step = comparison.costs.drafter_step
    return words if step is None else f"{words}, drafter {1000 * step:.2f} ms"


def spread(found: Spread, digits: int) -> str:
    """``1.82 (1.70-1.95)``: the median and the range."""
    return f"{found.median:.{digits}f} ({found.lowest:.{digits}f}-{found.highest:.{digits}f})"


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _line(console: Console, text: str, style: str = "") -> None:
    # Text takes no markup: what a model or a file is called must not style anything.
    console.print(Text(visible(text), style), soft_wrap=True)


def _speeds(comparison: Comparison) -> Table:
    table = _table("tokens/s", "× ar", "accepted", "by place, %", "per pass", "first")
    for result in comparison.results:
        figures = result.figures
        table.add_row(
            result.contender,
            spread(figures.tokens_per_second, 0),
            spread(figures.speed_up, 2),
            percent(figures.acceptance),
            _places(figures.acceptance_by_place),
            f"{figures.tokens_per_iteration:.2f}",
            f"{1000 * figures.first_seconds.median:.0f} ms",
        )
    return table


def _times(comparison: Comparison) -> Table:
    has_memory = any(result.figures.peak_memory is not None for result in comparison.results)
    table = _table(*PHASES, "weights/s", "efficiency", *(["peak memory"] if has_memory else []))
    for result in comparison.results:
        figures = result.figures
        split = figures.split or {}
        table.add_row(
            result.contender,
            *(percent(split.get(phase)) for phase in PHASES),
            size(round(figures.bandwidth)),
            "" if figures.efficiency is None else spread(figures.efficiency, 2),
            *([size(figures.peak_memory)] if figures.peak_memory is not None else []),
        )
    return table


def _profiles(comparison: Comparison) -> Table:
    table = _table("ms", *PARTS)
    for result in comparison.results:
        if parts := result.figures.profile:
            whole = sum(parts.values())
            table.add_row(result.contender, f"{1000 * whole:.2f}", *(part_of(parts[name], whole) for name in PARTS))
    return table


def part_of(seconds: float, whole: float) -> str:
    """``1.25 8%``: milliseconds and the share."""
    return f"{1000 * seconds:.2f} {seconds / whole:.0%}"


def _table(*headings: str) -> Table:
    """Fits into 80 columns; what does not is cut rather than broken."""
    table = Table("", *headings, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    return table


def _places(places: tuple[Place, ...]) -> str:
    shares = " ".join(f"{100 * place.accepted / place.drafted:.0f}" for place in places[:PLACES])
    return f"{shares} …" if len(places) > PLACES else shares
