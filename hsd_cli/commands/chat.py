"""``hsd chat``: a conversation in the terminal."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsd_cli.commands import options
from hsd_cli.commands.acquire import ensure_downloaded
from hsd_cli.commands.groups import in_groups
from hsd_cli.commands.interrupts import leaving_at_once
from hsd_cli.commands.models import ChosenPair, say
from hsd_cli.commands.prompts import REPAIRED, valid
from hsd_cli.commands.recommended import say_recommended
from hsd_cli.errors import EXIT_FAILURE, EXIT_INTERRUPTED, UsageError

if TYPE_CHECKING:
    from hsd_cli.chat.conversation import Conversation
    from hsd_cli.chat.reader import Reader
    from hsd_cli.runtime.loading import LoadedModel


@in_groups(without=("tensor_parallel", "parallel", "targets"))
def chat(
    ctx: typer.Context,
    *,
    models: options.Models,
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
    sampling: options.Sampling,
    drafting: options.Drafting,
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
    if "" in (stop or []):
        raise UsageError("--stop must not be empty")
    if resume and load is not None:
        raise UsageError("--continue goes on with the last chat and --load with that of a file; leave one of them out")

    from hsd_cli.chat.conversation import Conversation
    from hsd_cli.chat.settings import Settings

    conversation, before = _earlier(resume, load) or (Conversation(), dict[str, str]())
    if resume and models.target is None:
        models = replace(models, target=before.get("target"), draft=models.draft or before.get("drafter"))
    if system is not None:
        conversation.system = valid(system)
    pair = ChosenPair(models, drafting)

    settings = Settings(
        sampling=sampling.settings(),
        seed=sampling.seed,
        algorithm=drafting.algorithm,
        lookahead=drafting.lookahead,
        verification=drafting.verification,
        max_new_tokens=max_new_tokens,
        stop=tuple(map(valid, stop or [])),
        live=live is not False,
        stats=stats,
        history=history and os.environ.get("HSD_NOHISTORY", "") in ("", "0"),
    )
    with leaving_at_once():
        reader = _reader(
            settings.history, drafting.strict, quiet
        )  # what is wrong with its history need not wait for the weights
    engine = pair.load(quiet)
    if not quiet:
        say_recommended(ctx, engine.target)

    from hsd_cli.chat.commands import resumed
    from hsd_cli.chat.repl import Repl
    from hsd_cli.chat.session import Session

    session = Session(engine, settings, conversation, lambda name: _load_drafter(pair, name, quiet))
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


def _load_drafter(pair: ChosenPair, name: str, quiet: bool) -> LoadedModel:
    """Another drafter, where and how the first one would have been loaded."""
    ensure_downloaded([name], pair.models.pull, quiet, pair.models.trust_remote_code)
    return pair.load_drafter(name)
