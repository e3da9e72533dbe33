"""The plan of a pair, or of several drafters for one target, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hsd_cli.errors import HsdError
from hsd_cli.planner.pair_plan import ASSUMED_ACCEPTANCE, Demand, ModelFacts, PairPlan
from hsd_cli.planner.speedup import FORMULA, Prediction
from hsd_cli.planner.verdict import judge
from hsd_cli.ui.plan_figures import count, size, span
from hsd_cli.ui.terminal import escape

STYLES = {"yes": "bold green", "maybe": "bold yellow", "don't": "bold red"}
ENDLESS = 1 << 30  # tokens: what models without positions are said to hold


def print_plan(plan: PairPlan) -> None:
    """The two models, the memory, the costs and what they predict, and the verdict."""
    console = Console(highlight=False)
    console.print(_models(plan))
    _line(console, f"\n{plan.vocabularies.verdict.reason}\n")
    console.print(_memory(plan))
    console.print()
    console.print(_prediction(plan))
    _line(console, _assumptions(plan), "dim")
    if plan.record is not None:
        console.print()
        console.print(_measured(plan))
        _line(console, _seconds(plan), "dim")
    verdict = judge(plan)
    _line(console, f"\n{verdict}", STYLES[verdict.answer])


def print_ranking(plans: Sequence[PairPlan], unfit: Mapping[str, HsdError]) -> None:
    """One line per drafter, as ranked; then what does not fit, and the verdict on the first."""
    console = Console(highlight=False)
    table = _table("", "drafter", "size", "shared", "cost", "break even", "speed-up", "")
    for place, plan in enumerate(plans, 1):
        answer = judge(plan).answer
        table.add_row(
            str(place),
            Text(_name(plan.drafter.name)),
            count(plan.drafter.footprint.parameters),
            "all" if plan.vocabularies.same else f"{plan.vocabularies.a.share_of_text:.0%}",
            span(*plan.cost),
            span(*plan.break_even),
            _speed_up(plan),
            Text(answer, STYLES[answer]),
        )
    console.print(table)
    for name, error in unfit.items():
        reason = _name(str(error))
        _line(console, f"don't: {reason}" if _name(name) in reason else f"don't: {_name(name)}: {reason}")
    _line(console, "\n" + _assumptions(plans[0]), "dim")
    verdict = judge(plans[0])
    _line(console, f"\n{_name(plans[0].drafter.name)}: {verdict}", STYLES[verdict.answer])


def _models(plan: PairPlan) -> Table:
    table = _table("", f"target: {_name(plan.target.name)}", f"drafter: {_name(plan.drafter.name)}")
    models, sides = (plan.target, plan.drafter), (plan.vocabularies.a, plan.vocabularies.b)
    table.add_row("architecture", *(f"{m.footprint.architecture}, {m.footprint.layers} layers" for m in models))
    table.add_row("parameters", *(count(model.footprint.parameters) for model in models))
    table.add_row("read per token", *(_read(model) for model in models))
    table.add_row("context", *(_context(model) for model in models))
    table.add_row("tokenizer", *(f"{side.family}, {side.tokens:,} tokens" for side in sides))
    table.add_row("shared tokens", *(f"{side.shared_fraction:.1%}" for side in sides))
    table.add_row("share of text", *(f"{side.share_of_text:.1%}" for side in sides))
    return table


def _read(model: ModelFacts) -> str:
    unknown = model.footprint.unknown
    return count(model.footprint.read_per_token) + (f" ({unknown})" if unknown else "")


def _context(model: ModelFacts) -> str:
    tokens = model.footprint.context_size
    return "endless" if tokens >= ENDLESS else f"{tokens:,} tokens"


def _memory(plan: PairPlan) -> Table:
    table = _table("memory", "has", "dtype", "target", "drafter", f"caches at {plan.context:,} tokens", "")
    for demand in plan.demands:
        table.add_row(
            demand.device,
            size(demand.memory),
            str(demand.dtype).removeprefix("torch."),
            size(demand.target_weights),
            size(demand.drafter_weights),
            f"{size(demand.target_cache)} + {size(demand.drafter_cache)}",
            _fit(demand),
        )
    return table


def _fit(demand: Demand) -> Text:
    if demand.both <= demand.memory:
        return Text("both fit", "green")
    return Text("only the target fits", "yellow") if demand.target <= demand.memory else Text("too large", "red")


def _prediction(plan: PairPlan) -> Table:
    table = _table("predicted", "")
    table.add_row("cost ratio", f"c = {span(*plan.cost)} target passes per drafted token")
    table.add_row("", f"  = {span(*plan.step_ratios)} per drafter step × {plan.steps_per_token:.2f} steps per token")
    table.add_row("break even", f"acceptance {span(*plan.break_even)}")
    table.add_row("speed-up", f"{_at(plan.worst)} to {_at(plan.best)}")
    return table


def _at(prediction: Prediction) -> str:
    return f"×{prediction.speed_up:.2f} (a = {prediction.acceptance:g}, g = {prediction.lookahead})"


def _assumptions(plan: PairPlan) -> str:
    low, high = ASSUMED_ACCEPTANCE
    passes = "V = 1" if plan.slowest_pass == 1 else f"V = 1 to {plan.slowest_pass:g}"
    steps = "bytes of weights" if plan.step_ratios[0] == plan.step_ratios[1] else "bytes of weights or the layers"
    return (
        f"predicted speed-up = {FORMULA} at the best lookahead g, for acceptance a = {low:g} to {high:g},\n"
        f"{passes} target passes to check a draft, and steps that take as long as their {steps}"
    )


def _measured(plan: PairPlan) -> Table:
    assert plan.record is not None
    table = _table("measured", "text", "acceptance a", "cost c", "best g", "speed-up")
    for outcome in plan.outcomes:
        costs = plan.record.costs(plan.record.trials(outcome.kind)[outcome.algorithm])
        table.add_row(
            Text(_name(outcome.algorithm)),
            outcome.kind,
            f"{outcome.prediction.acceptance:.2f}",
            f"{costs.draft:.2f}",
            str(outcome.prediction.lookahead),
            f"×{outcome.speed_up:.2f}",
        )
    return table


def _seconds(plan: PairPlan) -> str:
    assert plan.record is not None
    passes = [seconds * 1000 for seconds in plan.record.pass_seconds]
    return (
        f"target pass {passes[0]:.1f} ms, over {len(passes)} tokens {passes[-1]:.1f} ms; "
        f"drafter step {plan.record.step_seconds * 1000:.1f} ms;\n"
        "sampled text at temperature 1; speed-up by the formula, with what was measured"
    )


def _speed_up(plan: PairPlan) -> str:
    if plan.record is not None:
        return f"×{plan.expected_speed_up:.2f} measured"
    return f"×{plan.worst.speed_up:.2f} to ×{plan.best.speed_up:.2f}"


def _name(name: str) -> str:
    """Of a model: it must not control the terminal. (Nor style anything: it is shown in ``Text``, without markup.)"""
    return escape(name.encode(errors="surrogateescape"))


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), soft_wrap=True)


def _table(*headers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for text in headers:
        table.add_column(Text(text), overflow="fold")
    return table
