"""What there is to do, before anything is done."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from hsd_cli.batch.journal import Journal
from hsd_cli.batch.parts import Parts
from hsd_cli.batch.records import Failure, Record
from hsd_cli.errors import HsdError


@dataclass(frozen=True)
class Survey:
    """Numbers of records: in all, done before, and yet to be written (the rest cannot be)."""

    total: int
    finished: int
    left: int


def survey(records: Iterable[Record | Failure], journal: Journal | Parts | None) -> Survey:
    """Raises ``HsdError`` if something is done that these records do not ask for."""
    done = {} if journal is None else dict(journal.finished)
    finished, total, left = len(done), 0, 0
    for record in records:
        total += 1
        if isinstance(journal, Parts):
            journal.admit(record.id)
        asked = record.fingerprint if isinstance(record, Record) else ""
        found = None if record.id is None else done.pop(record.id, None)
        if found is None:
            left += isinstance(record, Record)
        elif found != asked and journal is not None:
            raise HsdError(
                f"{journal.name} has record {json.dumps(record.id)} with another prompt or other options; "
                "give another -o, or delete its line"
            )
    if done and journal is not None:
        name = json.dumps(next(iter(done)))
        raise HsdError(f"{journal.name} has record {name}, which is not in the input; give another -o")
    return Survey(total, finished, left)
