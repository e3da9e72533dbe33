"""``hsd generate``: one text from one prompt."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hsd_cli.commands import options
from hsd_cli.commands.batch import generate_batch
from hsd_cli.commands.each_file import generate_each
from hsd_cli.commands.groups import in_groups
from hsd_cli.commands.many_texts import in_this_process, side_by_side
from hsd_cli.commands.models import ChosenPair, say
from hsd_cli.commands.on_cluster import on_cluster
from hsd_cli.commands.one_text import Display, write_text
from hsd_cli.commands.prompts import REPAIRED, read_prompt, valid
from hsd_cli.commands.recommended import say_recommended
from hsd_cli.commands.tensor_parallel import take_part
from hsd_cli.errors import EXIT_INTERRUPTED, HsdError, UsageError
from hsd_cli.ui.output import Output

if TYPE_CHECKING:
    from hsd_cli.engine import Engine, Generation, Request

MANY = "Many texts"


@in_groups()
def generate(
    ctx: typer.Context,
    *,
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; `-` reads standard input.", show_default=False)
    ] = None,
    models: options.Models,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "-f",
            "--file",
            help="Read (more of) the prompt from a file or pattern; may be given several times.",
            rich_help_panel=options.TEXT,
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="One text for each --file: this prompt with {text} and {name} filled in.",
            rich_help_panel=MANY,
        ),
    ] = None,
    beside: Annotated[
        bool, typer.Option("--beside", help="One text for each --file, in FILE.out beside it.", rich_help_panel=MANY)
    ] = False,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", metavar="FOLDER", help="One text for each --file, in this folder.", rich_help_panel=MANY
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "-i",
            "--input",
            metavar="FILE.jsonl",
            help="One result for each record, a line of JSON or a row of Parquet; `-` is standard input.",
            rich_help_panel=MANY,
        ),
    ] = None,
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Texts to write at a time, in forward passes that they share; `auto` is as many as there is memory "
            "for, at most 32. The results then come as they get ready.",
            rich_help_panel=MANY,
        ),
    ] = "1",
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Share --input out over a Ray cluster, by default one on this machine; needs "
            "`pip install 'hsd-cli[ray]'`.",
            show_default=False,
            rich_help_panel=MANY,
        ),
    ] = None,
    worker_cpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="CPUs of each worker of --ray. Default: one worker per GPU, or where there are none one per node.",
            show_default=False,
            rich_help_panel=MANY,
        ),
    ] = None,
    system: options.System = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--raw",
            help="Use the chat template, or continue the prompt as it is, special tokens by their names. "
            "Default: chat if the target has a template.",
            show_default=False,
            rich_help_panel=options.TEXT,
        ),
    ] = None,
    max_new_tokens: options.MaxNewTokens = 256,
    stop: options.Stop = None,
    sampling: options.Sampling,
    drafting: options.Drafting,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write to a file, not to stdout.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object with text, counts and times.", rich_help_panel=options.OUTPUT
        ),
    ] = False,
    live: options.Live = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Write a page about the run: text by origin, acceptance, timeline.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    stats: options.Stats = True,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write text with a target model, made faster by a drafter; the text is the target's own.

    Without `--target` the small embedded pair runs, offline. Piped input comes first, then the files, then the prompt
    argument. The text goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failure (of any of many texts),
    2 usage, 130 interrupted (what was written so far stays).

    **On a terminal** drafted tokens that the target confirmed are green and bold, the target's own are plain; below the
    text is what is happening now. The speed-up is against plain decoding as it was timed in this very run.

    **Many texts**: with `--template`, `--beside` or `--output-dir` each file is a prompt of its own. With `--input`
    each line of JSON is one: `prompt` or `messages`, and if it likes `id`, `system`, `chat`, `stop`, `max_new_tokens`,
    `seed`, `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `algorithm`, `lookahead`, `verification`.
    Each result is appended to `--output` at once; after a crash or Ctrl-C the same command goes on where it stopped. A
    bad record becomes a result with `error`. `--seed` gives each record a seed of its own, by its id. With
    `--batch-size` or `--ray` several are written at a time, each as it would be alone; they come as they get ready.

    **Several GPUs**: `--device-map auto` puts the target's layers on all of them. With `torchrun --standalone
    --nproc-per-node N -m hsd_cli generate --tensor-parallel ...` each of N processes has a share of every matrix; the
    first one is the command, the others only compute with it.

    **Algorithms**: `auto` runs what pays best, from moment to moment, and plain decoding where nothing does ·
    `ar` plain decoding · `lookup` copies from earlier text, no drafter needed · `sd` one shared vocabulary ·
    `slem` exact match of drafted text, any pair · `slrs` rejection sampling of drafted text, any pair · `tli` tokens
    that both vocabularies have · `union` the baseline of `tli`.

    **Examples**

    `hsd generate "def fibonacci(n):"`

    `hsd generate -t Qwen/Qwen2.5-7B-Instruct -d HuggingFaceTB/SmolLM2-135M-Instruct "Why is the sky blue?"`

    `git diff | hsd generate -t MODEL -d DRAFTER "Write a commit message."`

    `hsd generate --temperature 0.7 --seed 7 --json "import os" | jq .acceptance_rate`

    `hsd generate -t MODEL -d DRAFTER -f notes.txt "Summarise:"`

    `hsd generate -t MODEL -d DRAFTER -f 'src/**/*.py' --template 'Explain {name}:\\n{text}' --output-dir explained`

    `hsd generate -t MODEL -d DRAFTER -i prompts.jsonl -o out.jsonl`

    `hsd generate --pair big --report run.html "def fibonacci(n):"`
    """
    each = template is not None or beside or output_dir is not None
    size = _size(batch_size)
    pair = ChosenPair(models, drafting)
    if models.tensor_parallel:
        take_part(pair)
    _refuse(
        ("" in (stop or []), "--stop must not be empty"),
        (
            chat is False and system is not None,
            "--system is part of a chat, and --raw asks for none; leave one of them out",
        ),
        (
            source is not None and (prompt is not None or file or each),
            "--input has the prompts; leave the prompt, --file and the options about files out",
        ),
        (source is None and ray is not None, "--ray is about many records; name them with --input"),
        (size != 1 and source is None and not each, "--batch-size is about many texts; name them with --input"),
        (size != 1 and drafting.parallel, "--parallel is for one text at a time; leave --batch-size out"),
        (size != 1 and models.tensor_parallel, "--tensor-parallel is for one text at a time; leave --batch-size out"),
        (ray is None and worker_cpus is not None, "--worker-cpus is about the workers of --ray"),
        (ray is not None and models.tensor_parallel, "--ray has a pair in each worker; leave --tensor-parallel out"),
        (
            drafting.parallel and pair.drafter is None,
            "--parallel is for a drafter model at work; add --draft MODEL, and leave `--algorithm ar` or `lookup` out",
        ),
        (
            drafting.parallel and models.tensor_parallel,
            "--tensor-parallel needs processes that draft alike; leave --parallel out",
        ),
        (drafting.targets > 1 and not drafting.parallel, "--targets is about --parallel; add it"),
        (
            drafting.targets > 1 and models.device_map is not None,
            "--device-map places the target by itself; leave --targets out",
        ),
        (source is not None and json, "--input writes JSON Lines anyway; leave --json out"),
        (report is not None and (source is not None or each), "--report is about one text; leave it out"),
        (each and not file, "--template, --beside and --output-dir are about files; name them with --file"),
    )
    settings = sampling.settings()
    given = "" if source is not None or each else _given(prompt, file)
    text = valid(given)
    if drafting.strict and text != given:
        raise HsdError("the prompt is not valid UTF-8; convert it, as with iconv, or leave --strict out")

    def request(time_plain: bool = False) -> Request:
        from hsd_cli.engine import Request

        return Request(
            prompt=text,
            system=None if system is None else valid(system),
            chat=chat,
            algorithm=drafting.algorithm,
            lookahead=drafting.lookahead,
            max_new_tokens=max_new_tokens,
            sampling=settings,
            verification=drafting.verification,
            parallel=drafting.parallel,
            targets=drafting.targets,
            seed=sampling.seed,
            stops=tuple(map(valid, stop or [])),
            time_plain=time_plain,
        )

    def load() -> Engine:
        if chat or system is not None:
            pair.tokenizer().uses_chat(text, system, chat)  # what it refuses need not wait for the weights
        engine = pair.load(quiet)
        if not quiet:
            say_recommended(ctx, engine.target)
        return engine

    fixing = " --eos ".join([pair.target, *(models.eos or [])])  # what a result belongs to
    many: dict[str, Any] = {"target": fixing, "stats": stats, "quiet": quiet}
    if source is not None:
        start = in_this_process(partial(side_by_side, load, size))
        if ray is not None:
            quietly = partial(side_by_side, partial(pair.load, quiet=True), size)
            start = on_cluster(quietly, size, ray, worker_cpus, models.device, quiet)
        generate_batch(source, output, request(), start=start, **many)
        return
    place = None if output is None else Path(output)
    if each:
        generate_each(
            file or [],
            prompt,
            request(),
            template=template,
            beside=beside,
            folder=output_dir,
            output=place,
            as_json=json,
            strict=drafting.strict,
            start=in_this_process(partial(side_by_side, load, size)),
            **many,
        )
        return
    with Output(place) as sink, nullcontext() if report is None else Output(report) as page:
        if text != given and not quiet:
            say(f"the prompt is {REPAIRED}")
        engine = load()

        from hsd_cli.ui.live import LiveDisplay, can_be_live

        is_live = (
            not json and live is not False and not quiet and output is None and can_be_live(sys.stdout, sys.stderr)
        )

        def display_for(generation: Generation) -> AbstractContextManager[Display | None]:
            if is_live:
                return LiveDisplay(generation, sys.stdout)
            return nullcontext(None if json else sink)

        run = write_text(engine, request(time_plain=is_live), display_for, quiet)
        if json:
            sink.replace(run.report.json())
        if page is not None:
            from hsd_cli.ui.run_page import render_page

            page.replace(render_page(run.report, text, run.commits))
    if stats and not quiet and not json and run.exit_code in (0, EXIT_INTERRUPTED):
        say(run.report.line())
    if run.exit_code:
        raise typer.Exit(run.exit_code)


def _refuse(*impossible: tuple[object, str]) -> None:
    """Raises ``UsageError`` for the first of the contradictions that holds."""
    for holds, sentence in impossible:
        if holds:
            raise UsageError(sentence)


def _size(given: str) -> int | None:
    """Of a batch; ``None`` for `auto`."""
    if given != "auto" and not (given.isascii() and given.isdecimal() and int(given)):
        raise UsageError(f"--batch-size {given!r} is neither auto nor a whole number from 1")
    return None if given == "auto" else int(given)


def _given(prompt: str | None, file: list[Path] | None) -> str:
    given = read_prompt(prompt, file or [])
    if not given:
        raise UsageError("the prompt is empty; give it as an argument, with --file, or on standard input")
    return given
