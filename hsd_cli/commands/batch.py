"""`hsd generate -i`: many texts from JSONL records, one result per line."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import typer

from hsd_cli.commands.interrupts import holding_interrupts
from hsd_cli.commands.models import say
from hsd_cli.errors import EXIT_INTERRUPTED, HsdError
from hsd_cli.ui.output import Output

if TYPE_CHECKING:
    from hsd_cli.batch.journal import Journal
    from hsd_cli.engine import Engine, Generation, Request

STANDARD_INPUT = "-"
SEED_BITS = 32


def generate_batch(
    source: str,
    output: Path | None,
    base: Request,
    *,
    target: str,
    load: Callable[[], Engine],
    stats: bool,
    quiet: bool,
) -> None:
    """A result for each JSONL record of the file ``source`` (``-``: standard input), appended to ``output`` or printed.

    What a record does not say is as in ``base``; ``base.seed`` is the run's, from which each record has its own by its
    id. After Ctrl-C or a crash the same command goes on: what ``output`` has is skipped, but for errors, which are
    tried again. ``load`` is called once all is refused that can be without ``target``'s weights. Results are in the
    order of the input, those of a second try at the end. Raises ``HsdError`` at the end if records failed.
    """
    from hsd_cli.batch.journal import Journal
    from hsd_cli.batch.records import Failure, read_records
    from hsd_cli.batch.results import write_texts
    from hsd_cli.batch.survey import survey
    from hsd_cli.ui.batch_progress import BatchProgress

    with ExitStack() as stack:
        resumable = output is not None and (output.is_file() or not output.exists())
        lines = stack.enter_context(_opened(source, to_the_end=resumable))
        journal = stack.enter_context(Journal(output)) if output is not None and resumable else None
        append = _printer(stack.enter_context(Output(output))) if journal is None else journal.append
        finished = {} if journal is None else journal.finished
        run_seed = _run_seed(base.seed, journal)
        work = None
        if lines.seekable():
            beginning = lines.tell()
            work = survey(read_records(lines, base, run_seed, target), journal)
            lines.seek(beginning)
        if journal is not None:
            journal.repair()
        engine = cache(load)
        if work is None or work.left:
            engine()  # what it says comes before the bar

        def generate(request: Request) -> Generation:
            with holding_interrupts():
                return engine().generate(request)

        first = None
        shown = not quiet and sys.stderr.isatty() and not (output is None and sys.stdout.isatty())
        progress = BatchProgress(None if work is None else work.total, len(finished), shown)
        try:
            with progress:
                records = read_records(lines, base, run_seed, target)
                for outcome in write_texts(records, finished, generate, run_seed, progress.watch):
                    with holding_interrupts():
                        append(asdict(outcome))
                        progress.count(failed=isinstance(outcome, Failure))
                    if first is None and isinstance(outcome, Failure):
                        first = outcome
        except KeyboardInterrupt:
            if not quiet:
                say(progress.stopped() + ("" if journal is None else "; the same command continues"))
            raise typer.Exit(EXIT_INTERRUPTED) from None
    if stats and not quiet:
        say(progress.line())
    if first is not None:
        raise HsdError(
            f"{progress.failed} of {progress.seen} records failed; the first, line {first.line}: {first.error}"
        )


@contextmanager
def _opened(source: str, to_the_end: bool) -> Iterator[BinaryIO]:
    """The records, which can be read twice if they are in a file, or if ``to_the_end`` waits for all of them."""
    with ExitStack() as stack:
        try:
            lines = sys.stdin.buffer if source == STANDARD_INPUT else stack.enter_context(open(source, "rb"))
            if to_the_end and not lines.seekable():
                copy = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(lines, copy)
                copy.seek(0)
                lines = copy
        except OSError as error:
            raise HsdError(f"cannot read {source!r}: {error.strerror}") from error
        yield lines


def _printer(output: Output) -> Callable[[Mapping[str, Any]], None]:
    return lambda outcome: output.write(json.dumps(outcome) + "\n")


def _run_seed(given: int | None, journal: Journal | None) -> int:
    """That of the run which is gone on with; else the given one, or a new one."""
    begun = None if journal is None else journal.run_seed
    if journal is not None and given not in (None, begun) and begun is not None:
        raise HsdError(f"{journal.name} was begun with --seed {begun}; give the same, or another -o")
    if begun is not None:
        return begun
    return secrets.randbits(SEED_BITS) if given is None else given
