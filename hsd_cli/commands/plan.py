"""``hsd plan``: will this pair work, and how fast? Answered before the weights are downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hsd_cli.errors import HsdError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsd_cli.planner.pair_plan import PairPlan

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def plan(
    target: Annotated[str, typer.Argument(help="Model that writes the text: hub id or folder.", show_default=False)],
    drafters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DRAFTER]...", help="Models that might guess ahead.", show_default=False),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Also every drafter that is downloaded, and the embedded ones.")
    ] = False,
    context: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens to reckon the KV cache for. Default: 4096, or what the target holds.",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Load the models, and measure costs and acceptance.")
    ] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help='Measure on these, one per line; in a .jsonl file each a "prompt".'
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Number format of the weights.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Tell whether a pair of models will work, and how fast.

    Tokenizer files and configurations are enough: compatibility, vocabulary overlap, memory, the cost of a drafted
    token, the acceptance at which drafting breaks even, and a range of speed-ups under stated assumptions. Several
    drafters are ranked. `--measure` replaces the assumptions by measurements, which are kept for later runs until the
    models' files change.

    **Examples**

    `hsd plan Qwen/Qwen2.5-7B-Instruct HuggingFaceTB/SmolLM2-135M-Instruct`

    `hsd plan TARGET DRAFTER --measure --prompts prompts.txt`

    `hsd plan TARGET --local` ranks what is on this machine

    `hsd plan TARGET DRAFTER --json | jq '.drafters[0].answer'`
    """
    if prompts is not None and not measure:
        raise UsageError("--prompts are measured on; add --measure")
    sample = None if prompts is None else _read_prompts(prompts)
    if not drafters and not local:
        raise UsageError("which drafter? name one or more, or add --local for all that are on this machine")

    from rich.console import Console

    from hsd_cli.planner.candidates import local_drafters
    from hsd_cli.planner.pair_plan import plan_pair, read_facts

    names = list(dict.fromkeys([*(drafters or []), *(local_drafters(target) if local else [])]))
    plans: list[PairPlan] = []
    unfit: dict[str, str] = {}
    # Shown on terminals only, and gone afterwards.
    with Console(stderr=True, quiet=quiet).status("reading") as status:
        facts = read_facts(target)
        for name in names:
            try:
                plans.append(plan_pair(facts, read_facts(name), context, device, dtype))
            except UsageError:
                raise
            except HsdError as error:
                if len(names) == 1:
                    raise
                unfit[name] = str(error)
        plans = _measured(plans, sample, status.update) if measure else list(map(_recalled, plans))
    plans.sort(key=_rank)
    if as_json:
        from hsd_cli.ui.plan_json import to_json

        typer.echo(to_json(facts, plans, unfit))
        return

    from hsd_cli.ui.plan_table import print_plan, print_ranking

    if len(names) == 1:
        print_plan(plans[0])
    else:
        print_ranking(plans, unfit)


def _recalled(plan: PairPlan) -> PairPlan:
    """With what an earlier run measured, if it did."""
    from dataclasses import replace

    from hsd_cli.planner.memory import pair_key, recall

    key = pair_key(*plan.placements)
    return plan if key is None else replace(plan, record=recall(key))


def _measured(
    plans: Iterable[PairPlan], prompts: Sequence[str] | None, on_step: Callable[[str], None]
) -> list[PairPlan]:
    """The target is loaded once, the drafters one after the other."""
    from contextlib import suppress
    from dataclasses import replace

    import torch

    from hsd_cli.bench.measure_pair import PROMPTS, measure_pair
    from hsd_cli.engine import Engine
    from hsd_cli.planner.memory import pair_key, remember
    from hsd_cli.runtime.loading import load_model

    results = []
    target = None
    for plan in plans:
        where, number = str(plan.placements[0].device), str(plan.placements[0].dtype).removeprefix("torch.")
        on_step(f"loading {plan.drafter.name}")
        target = target or load_model(plan.target.name, where, number)
        try:
            engine = Engine(target, load_model(plan.drafter.name, where, number))
            record = measure_pair(engine, prompts or PROMPTS, on_step)
        except torch.OutOfMemoryError:
            raise HsdError("the device ran out of memory; try --dtype bfloat16 or --device cpu") from None
        key = pair_key(*plan.placements)
        with suppress(OSError):  # a full or read-only disk costs the time to measure again, nothing else
            if key is not None:
                remember(key, record)
        results.append(replace(plan, record=record))
    return results


def _rank(plan: PairPlan) -> tuple[int, float]:
    """The worthwhile first, then the faster."""
    from hsd_cli.planner.verdict import judge

    return ("yes", "maybe", "don't").index(judge(plan).answer), -plan.expected_speed_up


def _read_prompts(path: Path) -> list[str]:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if path.suffix == ".jsonl":
        try:
            lines = [str(json.loads(line)["prompt"]) for line in lines]
        except (ValueError, KeyError, TypeError):
            raise UsageError(f'every line of {str(path)!r} must be an object with a "prompt"') from None
    if not lines:
        raise UsageError(f"{str(path)!r} is empty; write one prompt per line, or leave --prompts out")
    return lines
