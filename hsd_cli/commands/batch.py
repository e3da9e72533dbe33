"""``hsd generate -i``: many texts from JSONL records, one result per line."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from hsd_cli.commands.many_texts import Writer, write_many
from hsd_cli.errors import HsdError
from hsd_cli.ui.output import Output

if TYPE_CHECKING:
    from hsd_cli.batch.journal import Journal
    from hsd_cli.batch.parts import Parts
    from hsd_cli.engine import Request


def generate_batch(
    source: str,
    output: str | None,
    base: Request,
    *,
    target: str,
    start: Callable[[], Writer],
    stats: bool,
    quiet: bool,
) -> None:
    """A result for each record of ``source`` (``-``: standard input), added to ``output`` or printed as JSON Lines.

    Both are paths or URLs of fsspec, Parquet where they are called so. What a record does not say is as in ``base``;
    ``base.seed`` is the run's, from which each record has its own by its id. After Ctrl-C or a crash the same command
    goes on: what ``output`` has is skipped, but for errors, which are tried again. ``start`` is called once all is
    refused that can be without ``target``'s weights. Results are as they come from there, those of a second try at the
    end. Raises ``HsdError`` at the end if records failed.
    """
    from hsd_cli.batch.journal import Journal
    from hsd_cli.batch.parts import Parts
    from hsd_cli.batch.places import is_parquet, local_path
    from hsd_cli.batch.records import read_records
    from hsd_cli.batch.sources import opened, to_the_end
    from hsd_cli.batch.survey import survey

    path = None if output is None else local_path(output)
    grows = path is not None and not is_parquet(str(path))  # line by line; elsewhere files come to files
    resumable = output is not None and (path is None or not grows or path.is_file() or not path.exists())
    journal: Journal | Parts | None = None
    with ExitStack() as stack:
        records = stack.enter_context(opened(source))
        if output is not None and resumable:
            journal = Journal(path) if path is not None and grows else Parts(output)
            stack.enter_context(journal)
        if journal is not None and journal.finished:  # of these records, or of others?
            records = stack.enter_context(to_the_end(records, source))
        put = stack.enter_context(Output(path)).write if journal is None else journal.append
        run_seed = _run_seed(base.seed, journal)
        found = survey(read_records(records.lines(), base, run_seed, target), journal) if records.again else None
        if journal is not None:
            journal.repair()
        failures = write_many(
            read_records(records.lines(), base, run_seed, target),
            lambda outcome: put(outcome.json()),
            start,
            ready=records.ready,
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


def _run_seed(given: int | None, journal: Journal | Parts | None) -> int:
    """That of the run which is gone on with; else the given one, or a new one."""
    if journal is None or journal.run_seed is None:
        return secrets.randbits(32) if given is None else given
    if given not in (None, journal.run_seed):
        raise HsdError(f"{journal.name} was begun with --seed {journal.run_seed}; give the same, or another -o")
    return journal.run_seed
