"""Results where nothing can be appended: a folder of files, each of which is there as a whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from time import monotonic
from typing import IO, Any

from hsd_cli.batch.journal import OF_A_RESULT, OF_AN_ERROR
from hsd_cli.batch.parquet import read_rows, require_pyarrow, write_rows
from hsd_cli.batch.places import filesystem, is_parquet, local_path, naming
from hsd_cli.batch.records import MOST, RecordId
from hsd_cli.errors import HsdError, UsageError

SECONDS = 30.0  # of results, and no more, are lost where the process is killed
RESULTS = 10_000  # in memory, and in a file

Row = Mapping[str, Any]


class Parts:
    """The results so far in the folder ``place``, and a place for more: a ``Journal`` of many files, JSON or Parquet.

    Each is written under a hidden name and renamed, half a minute after the one before or when the batch ends. What a
    kill loses was in none of them, and is written again. On one machine one process at a time has the folder; of other
    filesystems none is known that has locks. Raises ``HsdError`` as a ``Journal`` does.
    """

    def __init__(self, place: str) -> None:
        self.finished: dict[RecordId, str] = {}
        self.run_seed: int | None = None
        self.name = repr(place)
        self._place = place
        self._parquet = is_parquet(place)
        if self._parquet:
            require_pyarrow()
        self._id_kind: type | None = None
        self._rows: list[Row] = []
        self._since = monotonic()
        self._with_errors: list[str] = []
        self._descriptor: int | None = None
        with ExitStack() as failing:
            failing.callback(self._unlock)
            with naming("write", place):
                self._files, self._folder = filesystem(place)
                if self._files.isfile(self._folder):
                    raise UsageError(f"{self.name} is a file, and results are a folder of files there; give another -o")
                self._files.makedirs(self._folder, exist_ok=True)
                self._lock()
                self._parts = self._named("part-")
                for part in self._parts:
                    self._read(part)
            failing.pop_all()

    def admit(self, name: RecordId | None) -> None:
        """Raises ``UsageError`` for an id that the column of ids cannot hold with those before it."""
        if not self._parquet or name is None:
            return
        self._id_kind = self._id_kind or type(name)
        if type(name) is not self._id_kind:
            raise UsageError(f"{self.name} takes ids that are all strings or all whole numbers; use JSON Lines")
        if abs(name) > MOST if isinstance(name, int) else not _is_whole(name):
            raise UsageError(f"{self.name} cannot hold the id {json.dumps(name)}; use JSON Lines")

    def repair(self) -> None:
        """Removes what was not written to its end, and takes out errors, which are to be tried again."""
        with naming("write", self._place):
            for unfinished in self._named(".part-"):
                self._files.rm(unfinished)
            for part in self._with_errors:
                if kept := [row for row in self._rows_of(part) if _is_result(row)]:
                    self._write(part, kept)
                else:
                    self._files.rm(part)

    def append(self, line: str) -> None:
        """``line`` outlives the process and a loss of power with the file that it gets into."""
        row = json.loads(line)
        self.admit(row["id"])
        self._rows.append(row)
        if len(self._rows) >= RESULTS or monotonic() - self._since >= SECONDS:
            self._commit()

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._commit()
        finally:
            self._unlock()

    def _commit(self) -> None:
        if not self._rows:
            return
        # Part of the name is chance: where there is no lock, no process replaces a file of another.
        name = f"part-{len(self._parts):05}-{secrets.token_hex(4)}.{'parquet' if self._parquet else 'jsonl'}"
        part = f"{self._folder}/{name}"
        with naming("write", self._place):
            self._write(part, self._rows)
        self._parts.append(part)
        self._rows = []
        self._since = monotonic()

    def _write(self, part: str, rows: Iterable[Row]) -> None:
        folder, _, name = part.rpartition("/")
        hidden = f"{folder}/.{name}"
        with self._files.open(hidden, "wb") as file:
            self._put(file, rows)
            if self._descriptor is not None:
                file.flush()
                os.fsync(file.fileno())
        self._files.mv(hidden, part)
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def _put(self, file: IO[bytes], rows: Iterable[Row]) -> None:
        if self._parquet:
            write_rows(file, rows, self._id_kind or int)
        else:
            file.writelines(json.dumps(row).encode() + b"\n" for row in rows)

    def _read(self, part: str) -> None:
        has_errors = False
        for row in self._rows_of(part):
            if _is_result(row):
                self.admit(row["id"])
                self.finished[row["id"]] = row["fingerprint"]
                self.run_seed = row["run_seed"]
            elif row.keys() >= OF_AN_ERROR:
                has_errors = True
            else:
                raise HsdError(f"{part!r} has no results of hsd; give another -o")
        if has_errors:
            self._with_errors.append(part)

    def _rows_of(self, part: str) -> Iterator[Row]:
        if self._parquet:
            yield from read_rows(part, self._files)
            return
        with self._files.open(part, "rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                yield row if isinstance(row, dict) else {}

    def _named(self, beginning: str) -> list[str]:
        names = sorted(self._files.ls(self._folder, detail=False))
        return [name for name in names if name.rpartition("/")[2].startswith(beginning)]

    def _lock(self) -> None:
        path = local_path(self._place)
        if path is None:
            return
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HsdError(f"another process is writing {self.name}; wait for it, or give another -o") from None

    def _unlock(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def _is_result(row: Row) -> bool:
    return row.keys() >= OF_A_RESULT and row.get("error") is None and isinstance(row["id"], str | int)


def _is_whole(text: str) -> bool:
    """JSON can spell halves of characters, which Parquet has no bytes for."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
