"""The plan of a pair, or of several drafters for one target, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hsd_cli.planner.pair_plan import ASSUMED_ACCEPTANCE, Demand, ModelFacts, PairPlan
from hsd_cli.planner.speedup import FORMULA, Prediction
from hsd_cli.planner.verdict import judge
from hsd_cli.ui.plan_figures import count, size
from hsd_cli.ui.terminal import escape

STYLES = {"yes": "bold green", "maybe": "bold yellow", "don't": "bold red"}


def print_plan(plan: PairPlan) -> None:
    """The two models, the memory, the costs and what they predict, and the verdict."""
    console = Console(highlight=False)
    console.print(_models(plan))
    console.print()
    console.print(_memory(plan))
    console.print()
    console.print(_prediction(plan))
    if plan.record is not None:
        console.print()
        console.print(_measured(plan))
    console.print()
    verdict = judge(plan)
    console.print(Text(str(verdict), STYLES[verdict.answer]), soft_wrap=True)


def print_ranking(plans: Sequence[PairPlan], unfit: Mapping[str, str]) -> None:
    """One line per drafter, as ranked; then what does not fit, and the verdict on the first."""
    console = Console(highlight=False)
    table = _table("", "drafter", "parameters", "fit", "cost", "break even", "speed-up", "")
    for rank, plan in enumerate(plans, 1):
        verdict = judge(plan)
        table.add_row(
            str(rank),
            _name(plan.drafter.name),
            count(plan.drafter.footprint.parameters),
            ", ".join(plan.vocabularies.verdict.algorithms),
            f"{plan.cost:.2f}",
            _break_even(plan),
            _speed_up(plan),
            Text(verdict.answer, STYLES[verdict.answer]),
        )
    for name, reason in unfit.items():
        table.add_row("", _name(name), *[""] * 5, Text("don't", STYLES["don't"]))
    console.print(table)
    for name, reason in unfit.items():
        console.print(Text(f"don't use {escape(name.encode())}: {escape(reason.encode())}"), soft_wrap=True)
    console.print()
    if plans:
        _print_assumptions(console, plans[0])
        verdict = judge(plans[0])
        best = Text(f"{escape(plans[0].drafter.name.encode())}: ").append(str(verdict), STYLES[verdict.answer])
        console.print(best, soft_wrap=True)


def _print_assumptions(console: Console, plan: PairPlan) -> None:
    console.print(Text(_assumptions(plan), "dim"), soft_wrap=True)


def _models(plan: PairPlan) -> Table:
    table = _table("", f"target: {escape(plan.target.name.encode())}", f"drafter: {escape(plan.drafter.name.encode())}")
    models, sides = (plan.target, plan.drafter), (plan.vocabularies.a, plan.vocabularies.b)
    table.add_row("architecture", *(model.footprint.architecture for model in models))
    table.add_row("parameters", *(count(model.footprint.parameters) for model in models))
    table.add_row("read per token", *(_read(model) for model in models))
    table.add_row("tokenizer", *(f"{side.family}, {side.tokens:,} tokens" for side in sides))
    table.add_row("shared tokens", *(f"{side.shared_fraction:.1%}" for side in sides))
    table.add_row("share of text", *(f"{side.share_of_text:.1%}" for side in sides))
    return table


def _read(model: ModelFacts) -> str:
    unknown = model.footprint.unknown
    return count(model.footprint.read_per_token) + (f" ({unknown})" if unknown else "")


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
    table = _table("predicted", "", header=False)
    table.add_row("algorithms", Text(plan.vocabularies.verdict.reason))
    table.add_row(
        "cost ratio",
        f"c = {plan.cost:.2f} of a target pass per drafted token: {plan.bytes_ratio:.2f} of its bytes × "
        f"{plan.steps_per_token:.2f} drafter tokens per target token",
    )
    table.add_row("break even", f"acceptance {_break_even(plan)}")
    table.add_row("speed-up", f"{_at(plan.worst)} to {_at(plan.best)}")
    table.add_row("", Text(_assumptions(plan), "dim"))
    return table


def _assumptions(plan: PairPlan) -> str:
    low, high = ASSUMED_ACCEPTANCE
    passes = "V = 1" if plan.slowest_pass == 1 else f"V = 1 to {plan.slowest_pass:g}"
    return (
        f"predicted speed-up = {FORMULA} at the best lookahead g, assuming acceptance a = {low:g} to {high:g}, {passes} "
        "for a target pass over several tokens, and time that goes by the bytes of weights that are read"
    )


def _at(prediction: Prediction) -> str:
    return f"×{prediction.speed_up:.2f} (acceptance {prediction.acceptance:g}, lookahead {prediction.lookahead})"


def _measured(plan: PairPlan) -> Table:
    assert plan.record is not None
    table = _table("measured", "text", "acceptance", "cost ratio", "best lookahead", "speed-up")
    for outcome in plan.outcomes:
        costs = plan.record.costs(plan.record.trials(outcome.kind)[outcome.algorithm])
        table.add_row(
            outcome.algorithm,
            outcome.kind,
            f"{outcome.prediction.acceptance:.2f}",
            f"{costs.draft:.2f}",
            str(outcome.prediction.lookahead),
            f"×{outcome.prediction.speed_up:.2f}",
        )
    passes = [seconds * 1000 for seconds in plan.record.pass_seconds]
    table.caption_justify = "left"
    table.caption = Text(
        f"target pass {passes[0]:.1f} ms, over {len(passes)} tokens {passes[-1]:.1f} ms; "
        f"drafter step {plan.record.step_seconds * 1000:.1f} ms"
    )
    return table


def _break_even(plan: PairPlan) -> str:
    quick, slow = ("never" if value is None else f"{value:.2f}" for value in plan.break_even)
    return quick if quick == slow else f"{quick} to {slow}"


def _speed_up(plan: PairPlan) -> str:
    if plan.outcomes:
        return f"×{plan.outcomes[0].prediction.speed_up:.2f} measured"
    return f"×{plan.worst.speed_up:.2f} to ×{plan.best.speed_up:.2f}"


def _name(name: str) -> Text:
    # Text takes no markup: what a model is called must not style, link or overwrite anything.
    return Text(escape(name.encode()), overflow="fold")


def _table(*headers: str, header: bool = True) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=header)
    for text in headers:
        table.add_column(Text(text), overflow="fold")
    return table
