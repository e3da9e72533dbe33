"""``hsd generate -i``: many texts from JSONL records, one result per line."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hsd_cli.commands.many_texts import write_many
from hsd_cli.errors import HsdError
from hsd_cli.ui.output import Output

if TYPE_CHECKING:
    from hsd_cli.batch.journal import Journal
    from hsd_cli.engine import Engine, Request

STANDARD_INPUT = "-"


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
    from hsd_cli.batch.records import read_records
    from hsd_cli.batch.survey import survey

    resumable = output is not None and (output.is_file() or not output.exists())
    with ExitStack() as stack:
        lines = stack.enter_context(_opened(source, to_the_end=resumable))
        journal = stack.enter_context(Journal(output)) if output is not None and resumable else None
        put = stack.enter_context(Output(output)).write if journal is None else journal.append
        run_seed = _run_seed(base.seed, journal)
        found = None
        if lines.seekable():
            beginning = lines.tell()
            found = survey(read_records(lines, base, run_seed, target), journal)
            lines.seek(beginning)
        if journal is not None:
            journal.repair()
        failures = write_many(
            read_records(lines, base, run_seed, target),
            lambda outcome: put(outcome.json()),
            load,
            survey=found,
            finished=() if journal is None else journal.finished,
            run_seed=run_seed,
            prints=output is None,
            afterwards="" if journal is None else "; the same command continues",
            stats=stats,
            quiet=quiet,
        )
    if failures.first is not None:
        first = failures.first
        raise HsdError(
            f"{failures.failed} of {failures.seen} records failed; the first, in line {first.line}: {first.error}"
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


def _run_seed(given: int | None, journal: Journal | None) -> int:
    """That of the run which is gone on with; else the given one, or a new one."""
    if journal is None or journal.run_seed is None:
        return secrets.randbits(32) if given is None else given
    if given not in (None, journal.run_seed):
        raise HsdError(f"{journal.name} was begun with --seed {journal.run_seed}; give the same, or another -o")
    return journal.run_seed
