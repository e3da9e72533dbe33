"""``hsd generate``: one text from one prompt."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.errors import EXIT_INTERRUPTED, HsdError, UsageError
from hsd_cli.models.locate import EMBEDDED_DRAFTER, EMBEDDED_TARGET
from hsd_cli.ui.output import Output

if TYPE_CHECKING:
    from hsd_cli.engine import Engine, Generation, Request
    from hsd_cli.ui.run_report import RunReport

Algorithm = Literal["auto", "ar", "lookup", "sd", "slem", "slrs", "tli", "union"]
Verification = Literal["rejection", "coupled"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

MODELS = "Models"
TEXT = "Text"
SAMPLING = "Sampling"
DRAFTING = "Drafting"
OUTPUT = "Output"


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; `-` reads standard input.", show_default=False)
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("-t", "--target", help="Model that writes the text: hub id or folder.", rich_help_panel=MODELS),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option("-d", "--draft", help="Model that guesses ahead; any tokenizer.", rich_help_panel=MODELS),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.", rich_help_panel=MODELS)] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Number format of the weights.", rich_help_panel=MODELS)] = "auto",
    draft_device: Annotated[
        str | None, typer.Option(help="The drafter's device, if another one.", rich_help_panel=MODELS)
    ] = None,
    draft_dtype: Annotated[
        Dtype | None, typer.Option(help="The drafter's dtype, if another one.", rich_help_panel=MODELS)
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Read (more of) the prompt from a file.", rich_help_panel=TEXT)
    ] = None,
    system: Annotated[
        str | None, typer.Option("-s", "--system", help="System message of the chat.", rich_help_panel=TEXT)
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--raw",
            help="Use the chat template, or continue the prompt as it is. Default: chat if the target has a template.",
            show_default=False,
            rich_help_panel=TEXT,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("-n", "--max-new-tokens", min=1, help="Most tokens to write.", rich_help_panel=TEXT)
    ] = 256,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="End before this string; may be given several times.", rich_help_panel=TEXT),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", rich_help_panel=SAMPLING)] = 0.0,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 is off.", rich_help_panel=SAMPLING)] = 0,
    top_p: Annotated[
        float, typer.Option(help="Keep the likeliest tokens up to this mass; 1 is off.", rich_help_panel=SAMPLING)
    ] = 1.0,
    min_p: Annotated[
        float,
        typer.Option(help="Keep tokens at least this share of the likeliest; 0 is off.", rich_help_panel=SAMPLING),
    ] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1 makes repetition less likely; 1 is off.", rich_help_panel=SAMPLING)
    ] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=(1 << 32) - 1,
            help="Fixes the sampled text, the same for every algorithm and drafter (it implies `coupled`).",
            show_default=False,
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    algorithm: Annotated[
        Algorithm, typer.Option("-a", "--algorithm", help="How to draft; see below.", rich_help_panel=DRAFTING)
    ] = "auto",
    lookahead: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Target tokens to draft per iteration. Default: as many as pay, by their measured cost and gain.",
            show_default=False,
            rich_help_panel=DRAFTING,
        ),
    ] = None,
    verification: Annotated[
        Verification | None,
        typer.Option(
            help="`rejection` accepts most; `coupled` makes the text a function of the seed. Default: `coupled` with "
            "--seed, else `rejection`.",
            show_default=False,
            rich_help_panel=DRAFTING,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to a file, not to stdout.", rich_help_panel=OUTPUT)
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with text, counts and times.", rich_help_panel=OUTPUT)
    ] = False,
    stats: Annotated[
        bool, typer.Option("--stats/--no-stats", help="Statistics line on stderr.", rich_help_panel=OUTPUT)
    ] = True,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.", rich_help_panel=OUTPUT)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks (also: HSD_DEBUG=1).", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Write text with a target model, made faster by a drafter; the text is the target's own.

    Without `--target` the small embedded pair runs, offline. Piped input comes first, then the file, then the prompt
    argument. The text goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failure, 2 usage,
    130 interrupted (what was written so far stays).

    **Algorithms**: `auto` runs what pays best, from moment to moment, and plain decoding where nothing does ·
    `ar` plain decoding · `lookup` copies from earlier text, no drafter needed · `sd` one shared vocabulary ·
    `slem` exact match of drafted text, any pair · `slrs` rejection sampling of drafted text, any pair · `tli` tokens
    that both vocabularies have · `union` the baseline of `tli`.

    **Examples**

    `hsd generate "def fibonacci(n):"`

    `hsd generate -t Qwen/Qwen2.5-7B-Instruct -d HuggingFaceTB/SmolLM2-135M-Instruct "Why is the sky blue?"`

    `git diff | hsd generate -t MODEL -d DRAFTER "Write a commit message."`

    `hsd generate --temperature 0.7 --seed 7 --json "import os" | jq .acceptance_rate`
    """
    if debug:
        os.environ["HSD_DEBUG"] = "1"
    given = _read_prompt(prompt, file)
    if not given:
        raise UsageError("the prompt is empty; give it as an argument, with --file, or on standard input")
    if "" in (stop or []):
        raise UsageError("--stop must not be empty")
    if chat is False and system is not None:
        raise UsageError("--system is part of a chat, and --raw asks for none; leave one of them out")
    target_name, draft_name = _choose_models(target, draft, algorithm)
    sampling = SamplingSettings(temperature, top_k, top_p, min_p, repetition_penalty)
    text = _valid(given)
    with Output(output) as sink:
        if text != given and not quiet:
            _say("the prompt is not valid UTF-8; what cannot be read is replaced by \ufffd")
        with _leaving_at_once():
            if target is None and not quiet:
                _say(f"no --target given: using {target_name}" + (f" with {draft_name}" if draft_name else ""))

            from huggingface_hub.utils.tqdm import disable_progress_bars

            from hsd_cli.engine import Engine, Request
            from hsd_cli.runtime.loading import load_model
            from hsd_cli.vocab.tokenizer import ModelTokenizer

            if quiet:
                disable_progress_bars()
            if chat or system is not None:
                ModelTokenizer.load(target_name).uses_chat(
                    text, system, chat
                )  # what it refuses need not wait for weights
            engine = Engine(
                load_model(target_name, device, dtype),
                load_model(draft_name, draft_device or device, draft_dtype or dtype) if draft_name else None,
            )
        request = Request(
            prompt=text,
            system=None if system is None else _valid(system),
            chat=chat,
            algorithm=algorithm,
            lookahead=lookahead,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            verification=verification,
            seed=seed,
            stops=tuple(map(_valid, stop or [])),
        )
        report = _run(engine, request, None if json else sink, quiet)
        if json:
            sink.write(report.json())
    if stats and not quiet and not json:
        _say(report.line())
    if report.finish_reason == "interrupt":
        raise typer.Exit(EXIT_INTERRUPTED)


def _read_prompt(prompt: str | None, file: Path | None) -> str:
    """Standard input (piped, or asked for by ``-``), then the file, then the argument; a blank line between them."""
    parts: list[str] = []
    if sys.stdin is not None and (prompt == "-" or not sys.stdin.isatty()):
        parts.append(_decode(sys.stdin.buffer.read()))
    if file is not None:
        try:
            parts.append(_decode(file.read_bytes()))
        except OSError as error:
            raise HsdError(f"cannot read {str(file)!r}: {error.strerror}") from error
    if prompt not in (None, "-"):
        parts.append(prompt)
    parts = [part for part in parts if part]
    return "\n\n".join([*(part.rstrip("\n") for part in parts[:-1]), *parts[-1:]])


def _decode(data: bytes) -> str:
    """Text as Python passes arguments: bytes that are not UTF-8 become surrogates."""
    return data.decode("utf-8-sig", "surrogateescape")


def _valid(text: str) -> str:
    """``text`` without such surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@contextmanager
def _leaving_at_once() -> Iterator[None]:
    """Ctrl-C ends the process here and now: there is no text to keep yet, and an exception would be lost in imports."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a shell's background job ignores the signal
        signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _holding_interrupts() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block: what is made in it is there for whoever catches the interrupt."""
    before = signal.getsignal(signal.SIGINT)
    held: list[int] = []
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


def _choose_models(target: str | None, draft: str | None, algorithm: Algorithm) -> tuple[str, str | None]:
    if target is None:
        target, draft = EMBEDDED_TARGET, draft or EMBEDDED_DRAFTER
    if draft is None and algorithm not in ("auto", "ar", "lookup"):
        raise UsageError(f"--algorithm {algorithm} needs a drafter; add --draft MODEL")
    return target, None if algorithm in ("ar", "lookup") else draft


def _run(engine: Engine, request: Request, sink: Output | None, quiet: bool) -> RunReport:
    """Generates, streams the text to ``sink``, and sums up; an interrupt ends the text where it is."""
    import torch

    texts: list[str] = []
    ids: list[int] = []
    reason = "interrupt"

    def show(text: str) -> None:
        texts.append(text)
        if sink is not None:
            sink.write(text)

    try:
        with _holding_interrupts():
            generation = engine.generate(request)
            if generation.end_of_drafting is not None and not quiet:
                _say(f"the drafter's context holds {generation.end_of_drafting} tokens: no drafting beyond it")
            begun = perf_counter()
        for commit in generation.commits:
            ids += [piece.token for piece in commit.pieces]
            reason = commit.finish_reason or reason
            show(commit.text)
    except KeyboardInterrupt:
        if rest := generation.text.finish():  # what waited for the rest of a character or a stop string
            show(rest)
    except torch.OutOfMemoryError:
        raise HsdError("the device ran out of memory; try a shorter prompt, --dtype bfloat16 or --device cpu") from None
    return _report(engine, request, generation, "".join(texts), ids, reason, perf_counter() - begun)


def _report(
    engine: Engine, request: Request, generation: Generation, text: str, ids: list[int], reason: str, total: float
) -> RunReport:
    from hsd_cli.ui.run_report import RunReport

    statistics, seconds = generation.statistics, generation.clock.seconds
    decoding = total - seconds["prefill"]
    drafter = engine.drafter
    return RunReport(
        text=text,
        token_ids=ids,
        finish_reason=reason,
        algorithm=request.algorithm,
        verification=generation.verification,
        lookahead=request.lookahead,
        prompt_tokens=statistics.prompt_tokens,
        cached_prompt_tokens=statistics.cached_prompt_tokens,
        drafted=statistics.drafted,
        accepted=statistics.accepted,
        iterations=statistics.iterations,
        iterations_by_algorithm=dict(statistics.iterations_by.most_common()),
        acceptance_rate=statistics.acceptance_rate,
        tokens_per_iteration=statistics.tokens_per_iteration,
        seconds={name: seconds[name] for name in ("prefill", "draft", "verify", "translate")} | {"total": total},
        tokens_per_second=len(ids) / decoding if decoding > 0 else None,
        seed=generation.seed,
        target={"id": engine.target.name, "revision": engine.target.revision},
        draft=None if drafter is None else {"id": drafter.name, "revision": drafter.revision},
        verdict=None if generation.controller is None else generation.controller.verdict(),
    )


def _say(message: str) -> None:
    typer.echo(f"hsd: {message}", err=True)
