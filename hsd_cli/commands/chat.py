"""``hsd chat``: a conversation in the terminal."""

from __future__ import annotations

import os
import sys
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsd_cli.commands import options
from hsd_cli.commands.acquire import ensure_downloaded
from hsd_cli.commands.interrupts import leaving_at_once
from hsd_cli.commands.models import ModelOptions, say
from hsd_cli.commands.prompts import REPAIRED, valid
from hsd_cli.commands.recommended import say_recommended
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.errors import EXIT_FAILURE, EXIT_INTERRUPTED, UsageError

if TYPE_CHECKING:
    from hsd_cli.chat.conversation import Conversation
    from hsd_cli.chat.reader import Reader
    from hsd_cli.runtime.loading import LoadedModel


def chat(
    ctx: typer.Context,
    target: options.Target = None,
    draft: options.Draft = None,
    pair: options.PairName = None,
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    dtype: options.DtypeOption = "auto",
    draft_device: options.DraftDevice = None,
    draft_dtype: options.DraftDtype = None,
    quant: options.Quant = None,
    draft_quant: options.DraftQuant = None,
    attention: options.AttentionOption = "auto",
    pull: options.Pull = False,
    trust_remote_code: options.TrustRemoteCode = False,
    system: options.System = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="Go on with the last chat, and its models if none are given.",
            rich_help_panel=options.TEXT,
        ),
    ] = False,
    load: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Go on with a chat that /save wrote.", rich_help_panel=options.TEXT),
    ] = None,
    max_new_tokens: options.MaxNewTokens = 1024,
    stop: options.Stop = None,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = 0,
    top_p: options.TopP = 1.0,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    seed: options.Seed = None,
    algorithm: options.AlgorithmOption = "auto",
    lookahead: options.Lookahead = None,
    verification: options.VerificationOption = None,
    strict: options.Strict = False,
    history: Annotated[
        bool,
        typer.Option(
            "--history/--no-history",
            help="Keep what is typed, and the last chat (HSD_NOHISTORY=1 says no).",
            rich_help_panel=options.OUTPUT,
        ),
    ] = True,
    live: options.Live = None,
    stats: options.Stats = True,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Talk with a target model, made faster by a drafter; only what is new is read in each turn.

    Type a message and Enter; Alt-Enter begins a new line, and so does Enter between three quotes. `/help` lists the
    commands: settings, drafter and algorithm can be changed in the middle of a chat, answers written again, chats
    saved and loaded. Ctrl-C ends an answer, a second one at once; Ctrl-D ends the chat. Where standard input is no
    terminal, every line of it is a message or a command. Answers go to stdout, everything else to stderr.

    When the conversation outgrows the target's context, the oldest turns are left out until a quarter of it is free
    again besides the room for the answer; the system prompt stays, and it is said. A target without a chat template
    gets the conversation as plain text.

    What was typed and the last chat are kept in files that only you can read: in the folder `HSD_HISTORY`, else at the
    platform's place for user data.

    **Algorithms** are explained in `hsd generate --help`.

    Exit codes: 0 done; 1 failure, or some line of a piped chat failed; 2 usage; 130 interrupted.

    **Examples**

    `hsd chat`

    `hsd chat -t Qwen/Qwen2.5-7B-Instruct -d HuggingFaceTB/SmolLM2-135M-Instruct -s "Answer briefly."`

    `hsd chat --continue`

    `printf 'Name a colour.\\nAnd another one.\\n' | hsd chat -t MODEL -d DRAFTER > answers.txt`
    """
    if debug:
        os.environ["HSD_DEBUG"] = "1"
    if "" in (stop or []):
        raise UsageError("--stop must not be empty")
    if resume and load is not None:
        raise UsageError("--continue goes on with the last chat and --load with that of a file; leave one of them out")
    sampling = SamplingSettings(temperature, top_k, top_p, min_p, repetition_penalty)

    from hsd_cli.chat.conversation import Conversation
    from hsd_cli.chat.settings import Settings

    conversation, before = _earlier(resume, load) or (Conversation(), dict[str, str]())
    if resume and target is None:
        target, draft = before.get("target"), draft or before.get("drafter")
    if system is not None:
        conversation.system = valid(system)
    models = ModelOptions(
        target,
        draft,
        device,
        dtype,
        draft_device,
        draft_dtype,
        quant,
        draft_quant,
        attention,
        pull,
        algorithm,
        strict,
        trust_remote_code,
        device_map,
    )

    settings = Settings(
        sampling=sampling,
        seed=seed,
        algorithm=algorithm,
        lookahead=lookahead,
        verification=verification,
        max_new_tokens=max_new_tokens,
        stop=tuple(map(valid, stop or [])),
        live=live is not False,
        stats=stats,
        history=history and os.environ.get("HSD_NOHISTORY", "") in ("", "0"),
    )
    with leaving_at_once():
        reader = _reader(
            settings.history, strict, quiet
        )  # what is wrong with its history need not wait for the weights
    engine = models.load(quiet)
    if not quiet:
        say_recommended(ctx, engine.target)

    from hsd_cli.chat.commands import resumed
    from hsd_cli.chat.repl import Repl
    from hsd_cli.chat.session import Session

    session = Session(engine, settings, conversation, lambda name: _load_drafter(models, name, quiet))
    repl = Repl(session, reader, quiet)
    repl.greet(resumed(session, before) if before else [])
    try:
        repl.run()
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if repl.failed and not reader.interactive:
        raise typer.Exit(EXIT_FAILURE)


def _earlier(resume: bool, load: Path | None) -> tuple[Conversation, dict[str, str]] | None:
    """The chat to go on with, and its models."""
    from hsd_cli.chat import transcript

    if resume and not transcript.last_chat().exists():
        raise UsageError("there is no last chat to go on with; leave --continue out")
    file = transcript.last_chat() if resume else load
    return None if file is None else transcript.load(file)


def _reader(history: bool, strict: bool, quiet: bool) -> Reader:
    """A line editor if somebody sits at a terminal."""
    from prompt_toolkit.utils import is_dumb_terminal

    from hsd_cli.chat.reader import LineReader, PrivateHistory, TerminalReader
    from hsd_cli.chat.transcript import history_folder

    if sys.stdin is None:
        return LineReader(BytesIO(), interactive=False, repairing=None)
    interactive = sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())
    if interactive and not is_dumb_terminal():
        return TerminalReader(PrivateHistory(history_folder() / "history", history))

    @cache  # said once
    def repairing() -> None:
        if not quiet:
            say(f"a line is {REPAIRED}")

    return LineReader(sys.stdin.buffer, interactive, None if strict else repairing)


def _load_drafter(models: ModelOptions, name: str, quiet: bool) -> LoadedModel:
    """Another drafter, where and how the first one would have been loaded."""
    ensure_downloaded([name], models.pull, quiet, models.trust_remote_code)
    return models.load_drafter(name)
