"""One record's text, and what was counted and measured while it was written."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter

from hsd_cli.batch.records import Failure, Outcome, Record, RecordId
from hsd_cli.batch_engine import BatchEngine, Text
from hsd_cli.decoding.loop import Commit
from hsd_cli.engine import Generation
from hsd_cli.errors import HsdError, OutOfMemoryError


@dataclass(frozen=True)
class Result(Outcome):
    """A record's text, as it stands among the results. ``seconds``: all that the record took.

    ``tokens_per_second``: while decoding, without reading the prompt. ``run_seed`` and ``fingerprint`` let a later run
    go on. ``drafter_failure``: why the text went on without the drafter, if so. ``drafter_refusal``: why the drafter's
    template did not take the prompt, if so.
    """

    id: RecordId
    line: int
    text: str
    finish_reason: str
    tokens: int
    prompt_tokens: int
    cached_prompt_tokens: int
    drafted: int
    accepted: int
    acceptance_rate: float | None
    seconds: float
    tokens_per_second: float | None
    algorithm: str
    verification: str
    seed: int | None
    run_seed: int | None
    fingerprint: str
    drafter_failure: str | None
    drafter_refusal: str | None


@dataclass(frozen=True)
class Writing:
    """A record's text as far as it is."""

    record: Record
    begun: float
    commits: list[Commit]


def write_texts(
    records: Iterable[Record | Failure],
    finished: Container[RecordId],
    engine: BatchEngine,
    run_seed: int | None,
    watch: Callable[[Commit], None],
    ready: Callable[[], bool] = lambda: True,
) -> Iterator[Result | Failure]:
    """A result for each record that is not ``finished``, as they get ready; every commit is shown to ``watch``.

    Texts are not held up by records that have yet to come: as long as the next one is not ``ready``, they go on.
    What the engine refuses is a failure of its record alone, and so is a lack of memory, unless the record can be
    tried again in less company.
    """
    outcomes = (record for record in records if isinstance(record, Failure) or record.id not in finished)
    again: list[Record] = []
    writing: dict[Text, Writing] = {}
    while True:
        while engine.free and (again or not writing or ready()):
            record = again.pop() if again else next(outcomes, None)
            if record is None:
                break
            if isinstance(record, Failure):
                yield record
            else:
                writing[engine.begin(record.request)] = Writing(record, perf_counter(), [])
        if not writing:
            return
        for text, happened in engine.step():
            state = writing[text]
            if isinstance(happened, Commit):
                state.commits.append(happened)
                watch(happened)
                if happened.finish_reason is None:
                    continue
                assert text.generation is not None
                yield _result(state.record, run_seed, text.generation, state.commits, perf_counter() - state.begun)
            elif isinstance(happened, OutOfMemoryError) and engine.texts:
                engine.shrink()
                again.append(state.record)
            elif isinstance(happened, HsdError):
                yield Failure(state.record.id, state.record.line, str(happened))
            else:
                raise happened
            del writing[text]


def _result(
    record: Record, run_seed: int | None, generation: Generation, commits: list[Commit], seconds: float
) -> Result:
    statistics = generation.statistics
    decoding = seconds - generation.clock.seconds["prefill"]
    return Result(
        id=record.id,
        line=record.line,
        text="".join(commit.text for commit in commits),
        finish_reason=commits[-1].finish_reason or "",
        tokens=statistics.tokens,
        prompt_tokens=statistics.prompt_tokens,
        cached_prompt_tokens=statistics.cached_prompt_tokens,
        drafted=statistics.drafted,
        accepted=statistics.accepted,
        acceptance_rate=statistics.acceptance_rate,
        seconds=seconds,
        tokens_per_second=statistics.tokens / decoding if decoding > 0 else None,
        algorithm=record.request.algorithm,
        verification=generation.verification,
        seed=generation.seed,
        run_seed=run_seed,
        fingerprint=record.fingerprint,
        drafter_failure=statistics.drafter_failure,
        drafter_refusal=statistics.drafter_refusal,
    )
