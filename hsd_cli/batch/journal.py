"""The file of results, one JSON object per line: what it says is done is done, and stays."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hsd_cli.batch.records import RecordId
from hsd_cli.errors import HsdError

BEGINNING = b'{"id": '  # of every line
OF_A_RESULT = {"id", "line", "text", "fingerprint", "run_seed"}
OF_AN_ERROR = {"id", "line", "error"}


class Journal:
    """The results so far in the regular file ``path``, and a place for more. One process at a time has it.

    ``finished`` are the fingerprints of the records that are done, by id; errors are not done. ``run_seed`` is that of
    their run. Nothing changes before ``repair()``. Raises ``HsdError`` for a file that cannot be read or written, that
    another process is writing, or that holds something else than results.
    """

    def __init__(self, path: Path) -> None:
        self.finished: dict[RecordId, str] = {}
        self.run_seed: int | None = None
        self.name = repr(str(path))
        self._path = path.resolve()  # the file is replaced, not a link to it
        self._has_errors = False
        self._end = 0
        with self._named():
            self._descriptor = self._locked()
        try:
            with self._named():
                self._read()
        except BaseException:
            os.close(self._descriptor)
            raise

    def repair(self) -> None:
        """Cuts off a line that was not written to its end, and takes out errors, which are to be tried again."""
        with self._named():
            os.ftruncate(self._descriptor, self._end)
            if self._has_errors:
                self._take_out_errors()

    def append(self, line: str) -> None:
        """Once this returns, ``line`` outlives the process, and a loss of power. All of it is written, or none."""
        rest = data = line.encode()
        with self._named():
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                os.fsync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, self._end)
                raise
        self._end += len(data)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def _locked(self) -> int:
        """The file, opened for this process alone. The lock ends with the process, however that ends."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise HsdError(f"another process is writing {self.name}; wait for it, or give another -o") from None
            os.close(descriptor)  # its errors were taken out in between: the path has another file now

    def _read(self) -> None:
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                result = _object(line)
                is_result, is_error = _is_result(result), result.keys() >= OF_AN_ERROR
                begins_like_one = not result and (line.startswith(BEGINNING) or BEGINNING.startswith(line))
                if not line.endswith(b"\n") and (is_result or is_error or begins_like_one):
                    return  # a crash in the middle of it
                if is_result:
                    self.finished[result["id"]] = result["fingerprint"]
                    self.run_seed = result["run_seed"]
                elif is_error:
                    self._has_errors = True
                else:
                    raise HsdError(f"line {number} of {self.name} is no result of hsd; give another -o")
                self._end += len(line)

    def _take_out_errors(self) -> None:
        """Replaces the file by one without them, which is locked before anybody can see it."""
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with self._path.open("rb") as old, open(descriptor, "wb", closefd=False) as new:
                new.writelines(line for line in old if _is_result(_object(line)))
                self._end = new.tell()
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
            shutil.copymode(self._path, temporary)
            os.fsync(descriptor)
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor = descriptor

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HsdError(f"cannot write {self.name}: {error.strerror}") from error


def _is_result(line: Mapping[str, Any]) -> bool:
    return line.keys() >= OF_A_RESULT and isinstance(line["id"], str | int)


def _object(line: bytes) -> dict[str, Any]:
    """What ``line`` says; nothing, if it is not a JSON object."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
