"""``hsd bench``: how fast is this pair, side by side with plain decoding, and where does the time go?"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hsd_cli.commands import options
from hsd_cli.commands.groups import in_groups
from hsd_cli.commands.models import ChosenPair
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.drafting.names import ALGORITHM_NAMES
from hsd_cli.errors import EXIT_INTERRUPTED, UsageError
from hsd_cli.ui.output import Output

if TYPE_CHECKING:
    from hsd_cli.bench.runner import Bench
    from hsd_cli.bench.tasks import Task
    from hsd_cli.ui.bench_report import BenchReport

MEASURED = "What is measured"
TaskName = Literal["summarization", "code", "long-context", "all"]
DataSetName = Literal["cnn_dailymail", "openai_humaneval", "tau/scrolls"]


@in_groups(without=("device_map", "tensor_parallel", "eos"))
def bench(
    *,
    models: options.Models,
    # The names of these are their own: what is configured for texts does not change a measurement.
    algorithms: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Measure these beside plain decoding. Default: all that fit, and auto.",
            show_default=False,
            rich_help_panel=MEASURED,
        ),
    ] = None,
    draft_length: Annotated[
        int,
        typer.Option(
            "--lookahead",
            min=1,
            help="Target tokens to draft per iteration; auto alone chooses by itself.",
            rich_help_panel=MEASURED,
        ),
    ] = 4,
    temperatures: Annotated[
        str, typer.Option("--temperature", metavar="T,…", help="0 is greedy.", rich_help_panel=MEASURED)
    ] = "0",
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Also transformers' own generate, plain and assisted.", rich_help_panel=MEASURED),
    ] = False,
    task: Annotated[
        TaskName | None,
        typer.Option(help="Prompts of our own. Default: all.", show_default=False, rich_help_panel=options.TEXT),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help='Prompts of yours, one per line; in a .jsonl file each line\'s "prompt".',
            rich_help_panel=options.TEXT,
        ),
    ] = None,
    dataset: Annotated[
        DataSetName | None,
        typer.Option(
            help="The first 30 rows of a public data set; needs `pip install 'hsd-cli[bench]'`.",
            rich_help_panel=options.TEXT,
        ),
    ] = None,
    take: Annotated[
        int | None,
        typer.Option(
            min=1, help="Only so many prompts of each kind.", show_default=False, rich_help_panel=options.TEXT
        ),
    ] = None,
    tokens: Annotated[
        int,
        typer.Option(
            "-n",
            "--tokens",
            min=8,
            help="Tokens to write; the end of a text is ignored.",
            rich_help_panel=options.TEXT,
        ),
    ] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="Times that everything is run.", rich_help_panel=MEASURED)] = 5,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            dir_okay=False,
            metavar="FILE",
            help="Write every sample, the figures and the machine.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option(
            "--html",
            dir_okay=False,
            metavar="FILE",
            help="Write a page with plots.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure a pair: plain decoding, each algorithm and `auto`, side by side.

    All run in one process and take turns on every prompt, after a warm-up, with the same lengths and seeds; another
    one comes first each time. Shown are medians and ranges over the repeats. *tokens/s* counts what is written after
    the first tokens. *× ar* is the speed-up over plain decoding in the same repeat. *weights/s* is what is read of the
    models' weights per second. *efficiency* is the time that decoding would take with zero overhead over the time it
    took, where zero overhead is the sum over iterations of the measured cost of one target pass over 1 + drafted
    tokens and, for each step of the drafter, the measured cost of one step: medians of bare forward passes, timed
    between the texts. All of it takes minutes; `--take 1` is a first look, and Ctrl-C keeps what there is.

    Exit codes: 0 measured, 1 failure, 2 usage, 130 interrupted, 143 told to end; what was measured until then is shown
    and written.

    **Examples**

    `hsd bench --task code --take 1 -n 32 --repeats 2`

    `hsd bench -t TARGET -d DRAFTER --task code --temperature 0,1 --json bench.json --html bench.html`

    `hsd bench --pair big --algorithms slem,tli --lookahead 6 --prompts prompts.jsonl`

    `hsd bench -t TARGET -d DRAFTER --task summarization --peers` compares with transformers
    """
    if sum(option is not None for option in (task, prompts, dataset)) > 1:
        raise UsageError("--task, --prompts and --dataset each say what to measure on; give one of them")
    wanted = [] if algorithms is None else _algorithms(algorithms)
    settings = [_temperature(value) for value in temperatures.split(",")]
    texts = _tasks(task or "all", prompts, dataset, take)
    pair = ChosenPair(models, options.Drafting(strict=True))
    with ExitStack() as files:
        json_output, html_output = (
            None if path is None else files.enter_context(Output(path)) for path in (json_file, html_file)
        )
        engine = pair.load(quiet)

        from hsd_cli.bench.runner import Bench, Plan
        from hsd_cli.ui.bench_table import print_bench

        plan = Plan(texts, settings, wanted, draft_length, tokens, repeats)
        report, interrupted = _measured(Bench(engine, plan, peers), quiet)
        if report.comparisons:
            try:  # neither a closed terminal nor a file that cannot be written may cost what took minutes
                print_bench(report)
            finally:
                if json_output is not None:
                    json_output.replace(report.json())
                if html_output is not None:
                    from hsd_cli.ui.bench_page import render_page

                    html_output.replace(render_page(report))
        if interrupted:
            raise typer.Exit(interrupted)


def _measured(bench: Bench, quiet: bool) -> tuple[BenchReport, int]:
    """What was measured, and the exit code of what ended that early, if anything did."""
    import torch

    from hsd_cli.runtime.device import out_of_memory
    from hsd_cli.runtime.lack_of_memory import naming_lack_of_memory
    from hsd_cli.ui.bench_progress import BenchProgress

    interrupted = 0
    with BenchProgress(bench.texts, quiet) as progress:
        try:
            with naming_lack_of_memory():
                bench.run(progress.show)
        except KeyboardInterrupt:
            interrupted = EXIT_INTERRUPTED
        except SystemExit as told:  # to end
            interrupted = told.code if isinstance(told.code, int) else EXIT_INTERRUPTED
        except torch.OutOfMemoryError:
            raise out_of_memory(torch.device(bench.report().device)) from None
    return bench.report(), interrupted


def _tasks(task: TaskName, prompts: Path | None, dataset: DataSetName | None, most: int | None) -> list[Task]:
    from hsd_cli.bench.tasks import from_data_set, from_file, shipped

    if prompts is not None:
        return [from_file(prompts, most)]
    return shipped(task, most) if dataset is None else [from_data_set(dataset, most)]


def _algorithms(names: str) -> list[str]:
    for name in names.split(","):
        if name not in ALGORITHM_NAMES:
            raise UsageError(
                f"--algorithms: unknown algorithm {name!r}; use {', '.join(ALGORITHM_NAMES)}, separated by commas"
            )
    return names.split(",")


def _temperature(text: str) -> float:
    try:
        return SamplingSettings(float(text)).temperature
    except ValueError:
        raise UsageError(f"--temperature: {text!r} is not a number; give one or more, such as 0,1") from None
