"""Many texts with one pair of models: what one cannot have does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import typer

from hsd_cli.commands.interrupts import holding_interrupts
from hsd_cli.commands.models import say
from hsd_cli.errors import EXIT_INTERRUPTED, with_another_prompt, without_drafter

if TYPE_CHECKING:
    from hsd_cli.batch.records import Failure, Record, RecordId
    from hsd_cli.batch.results import Result
    from hsd_cli.batch.survey import Survey
    from hsd_cli.batch_engine import BatchEngine
    from hsd_cli.engine import Engine
    from hsd_cli.ui.batch_progress import BatchProgress

# Writes the records that are not finished, with seeds of the run's, and shows how far it is. The last argument is
# whether the next record can be had without waiting.
Writer: TypeAlias = (
    "Callable[[Iterable[Record | Failure], Container[RecordId], int | None, BatchProgress, Callable[[], bool]], "
    "Iterator[Result | Failure]]"
)


class Failures(NamedTuple):
    """How many of how many records failed, and the first that did."""

    failed: int
    seen: int
    first: Failure | None


def side_by_side(load: Callable[[], Engine], size: int | None, share: float = 1.0) -> BatchEngine:
    """A pair that writes ``size`` texts at a time, or as many as there is room for in its ``share`` of the machine."""
    from hsd_cli.batch_engine import BatchEngine
    from hsd_cli.planner.batch_size import texts_that_fit

    pair = load()
    return BatchEngine(pair, texts_that_fit(pair.target, pair.drafter, share) if size is None else size)


def in_this_process(load: Callable[[], BatchEngine]) -> Callable[[], Writer]:
    """Starts a pair here."""

    def start() -> Writer:
        from hsd_cli.batch.results import write_texts

        engine = load()
        return lambda records, finished, run_seed, progress, ready: write_texts(
            records, finished, engine, run_seed, progress.watch, ready
        )

    return start


def write_many(
    records: Iterable[Record | Failure],
    put: Callable[[Result | Failure], None],
    start: Callable[[], Writer],
    *,
    ready: Callable[[], bool] = lambda: True,
    survey: Survey | None,
    finished: Container[RecordId] = (),
    run_seed: int | None,
    prints: bool,
    afterwards: str = "",
    stats: bool,
    quiet: bool,
) -> Failures:
    """Hands every record's outcome to ``put``, shows how far it is on a terminal, and sums up.

    ``start`` is called once, if there is anything to write. As long as the next record is not ``ready``, texts that are
    being written go on without it. ``survey`` is unknown where records come as they please.
    ``prints``: the outcomes go to standard output. ``afterwards`` says what to do after Ctrl-C, which is exit code 130.
    """
    from hsd_cli.batch.records import Failure
    from hsd_cli.batch.results import Result
    from hsd_cli.ui.batch_progress import BatchProgress

    # What is said when it starts comes before the bar.
    write = start() if survey is None or survey.left else _only_failures
    first: Failure | None = None
    lost_told = refusal_told = quiet
    total, before = (None, 0) if survey is None else (survey.total, survey.finished)
    shown = not quiet and sys.stderr.isatty() and not (prints and sys.stdout.isatty())
    progress = BatchProgress(total, before, shown)
    try:
        with progress:
            for outcome in write(records, finished, run_seed, progress, ready):
                with holding_interrupts():
                    put(outcome)
                    progress.count(failed=isinstance(outcome, Failure))
                if not refusal_told and isinstance(outcome, Result) and outcome.drafter_refusal is not None:
                    refusal_told = True
                    say(with_another_prompt(outcome.drafter_refusal))
                if not lost_told and isinstance(outcome, Result) and outcome.drafter_failure is not None:
                    lost_told = True
                    say(without_drafter(outcome.drafter_failure))
                if first is None and isinstance(outcome, Failure):
                    first = outcome
    except KeyboardInterrupt:
        if not quiet:
            say(progress.stopped() + afterwards)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if stats and not quiet:
        say(progress.line())
    return Failures(progress.failed, progress.seen, first)


def _only_failures(
    records: Iterable[Record | Failure],
    finished: Container[RecordId],
    run_seed: int | None,
    progress: BatchProgress,
    ready: Callable[[], bool],
) -> Iterator[Result | Failure]:
    from hsd_cli.batch.records import Failure

    return (record for record in records if isinstance(record, Failure))
