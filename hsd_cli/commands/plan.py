"""``hsd plan``: will this pair work, and how fast? Answered before the weights are downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsd_cli.commands import options, suggestions
from hsd_cli.commands.acquire import ensure_downloaded
from hsd_cli.errors import HsdError, UsageError


def plan(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Model that writes the text: hub id, folder or GGUF file (on the hub: `owner/repo:file.gguf`).",
            show_default=False,
            autocompletion=suggestions.models,
        ),
    ],
    drafters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DRAFTER",
            help="Models that might guess ahead.",
            show_default=False,
            autocompletion=suggestions.models,
        ),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Also every model that is downloaded, and the embedded ones.")
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
            exists=True,
            dir_okay=False,
            help='Measure on these, one per line; in a .jsonl file on each line\'s "prompt".',
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")] = "auto",
    dtype: Annotated[options.Dtype, typer.Option(help="Number format of the weights.")] = "auto",
    quant: Annotated[options.Quantization | None, typer.Option(help="Quantize the target's weights.")] = None,
    draft_quant: Annotated[options.Quantization | None, typer.Option(help="Quantize the drafter's.")] = None,
    pull: options.Pull = False,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Tell whether a pair of models will work, and how fast.

    Tokenizer files and configurations are enough: which algorithms fit, the memory that weights and KV cache take,
    the cost of a drafted token, the acceptance at which drafting breaks even, and a range of speed-ups under stated
    assumptions. Several drafters are ranked. `--measure` loads the models and replaces the assumptions by measurements;
    they are kept until the models' files change, for `hsd plan` and for `--algorithm auto`.

    Exit codes: 0 answered, also where the answer is *don't*; 1 failure; 2 usage; 130 interrupted.

    **Examples**

    `hsd plan Qwen/Qwen2.5-7B-Instruct HuggingFaceTB/SmolLM2-135M-Instruct`

    `hsd plan TARGET DRAFTER --context 32768 --dtype bfloat16`

    `hsd plan TARGET DRAFTER --measure --prompts prompts.txt`

    `hsd plan TARGET --local` ranks what is on this machine

    `hsd plan TARGET DRAFTER --json | jq '.drafters[0].answer'`
    """
    if prompts is not None and not measure:
        raise UsageError("--prompts are measured on; add --measure")
    if not drafters and not local:
        raise UsageError("which drafter? name one or more, or add --local for all that are on this machine")

    from rich.console import Console
    from rich.text import Text

    from hsd_cli.bench.measure_plan import PlanMeasurer
    from hsd_cli.bench.prompts import PROMPTS, read_prompts
    from hsd_cli.planner.candidates import local_drafters
    from hsd_cli.planner.pair_plan import PairPlan, plan_pair, read_facts
    from hsd_cli.planner.verdict import rank, too_large
    from hsd_cli.ui.terminal import escape

    sample = PROMPTS if prompts is None else read_prompts(prompts)
    names = list(dict.fromkeys([*(drafters or []), *(local_drafters(target) if local else [])]))
    plans: list[PairPlan] = []
    unfit: dict[str, HsdError] = {}
    # Shown on terminals only, and gone afterwards.
    with Console(stderr=True, quiet=quiet).status("") as status:

        def on_step(words: str) -> None:
            status.update(Text(escape(words.encode(errors="surrogateescape"))))

        def acquire(name: str) -> None:
            status.stop()  # there may be a question, and a bar
            ensure_downloaded((target, name), pull, quiet, trust_remote_code)
            status.start()

        on_step(f"reading {target}")
        facts = read_facts(target, trust_remote_code)
        measurer = PlanMeasurer(sample, on_step, trust_remote_code)
        for name in names:
            on_step(f"reading {name}")
            try:
                drafter = read_facts(name, trust_remote_code)
                predicted = plan_pair(facts, drafter, context, device, dtype, (quant, draft_quant))
                if measure and not too_large(predicted):
                    acquire(name)
                plans.append(measurer.measured(predicted) if measure else predicted.recalled())
            except HsdError as error:
                unfit[name] = error
    if not plans:
        raise next(iter(unfit.values()))
    plans.sort(key=rank)
    if as_json:
        from hsd_cli.ui.plan_json import to_json

        typer.echo(to_json(plans, unfit))
        return

    from hsd_cli.ui.plan_table import print_plan, print_ranking

    if len(names) == 1:
        print_plan(plans[0])
    else:
        print_ranking(plans, unfit)
