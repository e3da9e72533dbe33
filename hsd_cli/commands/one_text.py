"""Writing one text to its end, or to the user's interrupt, before the user's eyes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from hsd_cli.commands.interrupts import holding_interrupts
from hsd_cli.commands.models import say
from hsd_cli.errors import EXIT_INTERRUPTED, with_another_prompt, without_drafter

if TYPE_CHECKING:
    from hsd_cli.decoding.loop import Commit
    from hsd_cli.engine import Engine, Generation, Request
    from hsd_cli.ui.run_report import RunReport


class Display(Protocol):
    """Where a text can be watched while it grows."""

    def show(self, commit: Commit) -> None:
        """The outcome of one iteration."""

    def write(self, text: str) -> None:
        """Text that belongs to no iteration."""


@dataclass(frozen=True)
class Run:
    """What came of it: the sums, and every iteration. ``exit_code`` is of what ended it early, else 0."""

    report: RunReport
    commits: list[Commit]
    exit_code: int


def write_text(
    engine: Engine,
    request: Request,
    display_for: Callable[[Generation], AbstractContextManager[Display | None]],
    quiet: bool,
) -> Run:
    """An interrupt ends the text where it is, and so does being told to end. Raises ``HsdError``."""
    from hsd_cli.ui.run_report import RunReport

    commits: list[Commit] = []
    rest = ""
    exit_code = 0
    try:
        with holding_interrupts():
            generation = engine.generate(request)
            if generation.end_of_drafting is not None and not quiet:
                say(f"the drafter's context holds {generation.end_of_drafting} tokens: no drafting beyond it")
            if (refusal := generation.statistics.drafter_refusal) is not None and not quiet:
                say(with_another_prompt(refusal))
            begun = perf_counter()
            display_context = display_for(generation)
        with display_context as display:
            try:
                for commit in generation.commits:
                    commits.append(commit)
                    if display is not None:
                        display.show(commit)
            except (KeyboardInterrupt, SystemExit) as ending:
                exit_code = EXIT_INTERRUPTED if isinstance(ending, KeyboardInterrupt) else int(ending.code or 0)
                rest = generation.text.finish()  # what waited for the rest of a character or a stop string
                if display is not None and rest:
                    display.write(rest)
    except KeyboardInterrupt:  # before the first token
        exit_code = EXIT_INTERRUPTED
    if commits and commits[-1].finish_reason == "context" and not quiet:
        prompt = generation.statistics.prompt_tokens
        if reason := engine.why_no_longer(prompt):
            say(f"the text ends at {prompt + generation.statistics.tokens} tokens{reason}")
    if (failure := generation.statistics.drafter_failure) is not None and not quiet:
        say(without_drafter(failure))
    report = RunReport.of(
        engine,
        request,
        generation,
        "".join(commit.text for commit in commits) + rest,
        [piece.token for commit in commits for piece in commit.pieces],
        (commits[-1].finish_reason if commits else None) or "interrupt",
        perf_counter() - begun,
    )
    return Run(report, commits, exit_code)
