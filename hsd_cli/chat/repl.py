"""The loop of a chat: read, ask, show, and keep."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing

from rich.console import Console
from rich.text import Text

from hsd_cli.chat import commands, transcript
from hsd_cli.chat.commands import Effect
from hsd_cli.chat.conversation import Turn
from hsd_cli.chat.entry import Command, parse
from hsd_cli.chat.reader import Reader
from hsd_cli.chat.session import Answer, Session
from hsd_cli.engine import Generation
from hsd_cli.errors import HsdError, with_another_prompt, without_drafter
from hsd_cli.runtime.placement import devices_of
from hsd_cli.ui.live import LiveDisplay, can_be_live
from hsd_cli.ui.output import Output
from hsd_cli.ui.terminal import visible


class Repl:
    """Talks on standard error and answers on standard output. ``failed``: something could not be done."""

    def __init__(self, session: Session, reader: Reader, quiet: bool) -> None:
        self.failed = False
        self._session = session
        self._reader = reader
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False)
        self._said: set[str] = set()
        self._kept: list[Turn] = list(session.conversation.turns)

    def greet(self, resumed: Iterable[str]) -> None:
        """Who is talking, and how to go on."""
        session = self._session
        models = session.models
        target = session.engine.target
        if self._reader.interactive:
            dtype = str(target.model.dtype).removeprefix("torch.")
            drafter = f" with {models['drafter']}" if "drafter" in models else ""
            self._talk(
                f"{models['target']}{drafter} · {session.settings.algorithm} · {devices_of(target.model)}, {dtype}"
            )
            self._talk(f"context {session.engine.context_size} tokens · /help shows what can be typed")
        if not session.has_template:
            self._talk(f"{models['target']} has no chat template: the conversation is continued as plain text")
        for line in resumed:
            self._talk(line)

    def run(self) -> None:
        """Until the end of what is typed. Raises ``KeyboardInterrupt`` where nobody sits there to go on."""
        while True:
            try:
                if self._follow(parse(self._reader.read(self._session.settings.history))):
                    return
            except EOFError:
                return
            except KeyboardInterrupt:
                if not self._reader.interactive:
                    raise
                self._talk("Ctrl-D or /bye leaves")
            except HsdError as error:
                self.failed = True
                self._show([f"hsd: {' '.join(str(error).split())}"])
            finally:
                self._keep()

    def _follow(self, entry: Command | str) -> bool:
        """Does what was typed; whether that was to leave."""
        effect = commands.run(self._session, entry) if isinstance(entry, Command) else Effect(message=entry)
        self._show(effect.lines)
        message = effect.message
        if message is not None and effect.edit:
            message = self._reader.edit(message).strip()
        if message:
            self._answer(self._session.ask(message, effect.again))
        return effect.leave

    def _answer(self, answer: Answer) -> None:
        self._announce(answer)
        with self._display(answer.generation) as display, closing(iter(answer)) as commits:
            for commit in commits:
                display.show(commit)
        report = answer.report
        if report is None:
            return
        if isinstance(display, Output) and not report.text.endswith("\n"):
            display.write("\n")
        if report.drafter_failure is not None:
            self._talk_once(without_drafter(report.drafter_failure))
        if self._session.settings.stats:
            self._talk(report.line())
        if report.finish_reason == "interrupt" and not self._reader.interactive:
            raise KeyboardInterrupt

    def _announce(self, answer: Answer) -> None:
        """What changes from here on."""
        size = self._session.engine.context_size
        if (newly := answer.left_out - self._session.conversation.left_out) > 0:
            turns = "oldest turn no longer fits" if newly == 1 else f"{newly} oldest turns no longer fit"
            self._talk(f"the {turns} into the context of {size} tokens: left out")
        if (end := answer.generation.end_of_drafting) is not None:
            self._talk_once(f"the drafter's context holds {end} tokens: no drafting beyond it")
        if (refusal := answer.generation.statistics.drafter_refusal) is not None:
            self._talk_once(with_another_prompt(refusal))

    def _display(self, generation: Generation) -> AbstractContextManager[LiveDisplay | Output]:
        if self._session.settings.live and can_be_live(sys.stdout, sys.stderr):
            return LiveDisplay(generation, sys.stdout)
        return Output(None)

    def _keep(self) -> None:
        """Saves the conversation for ``--continue`` when it has changed."""
        session = self._session
        if not session.settings.history or session.conversation.turns == self._kept:
            return
        try:
            transcript.save(transcript.last_chat(), session.conversation, session.models)
            self._kept = list(session.conversation.turns)
        except HsdError as error:
            self._talk_once(f"this chat is not kept: {error}")

    def _talk_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._talk(line)

    def _talk(self, line: str) -> None:
        if not self._quiet:
            self._show([line], "dim")

    def _show(self, lines: Iterable[str], style: str = "") -> None:
        for line in lines:
            self._console.print(Text(visible(line), style), soft_wrap=True)
