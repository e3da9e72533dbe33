"""Parquet: a row for each record, with a column for each field that a line of JSON would have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, get_args, get_type_hints

from hsd_cli.batch.results import Result
from hsd_cli.errors import UsageError

ROWS = 1024  # in memory at a time


def require_pyarrow() -> None:
    """Raises ``UsageError``."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UsageError("Parquet needs a package more: pip install 'hsd-cli[ray]'") from None


def read_rows(path: str, filesystem: Any) -> Iterator[dict[str, Any]]:
    """Of the file ``path``, or of all files in that folder in the order of their names. Raises ``OSError``."""
    from pyarrow import ArrowInvalid
    from pyarrow.dataset import dataset

    try:
        for batch in dataset(path, filesystem=filesystem, format="parquet").to_batches(batch_size=ROWS):
            yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise OSError(f"it is not Parquet: {str(error).splitlines()[0]}") from error


def write_rows(file: IO[bytes], rows: Iterable[Mapping[str, Any]], id_kind: type) -> None:
    """What lines of results and errors say, by their keys. ``id_kind`` is ``str`` or ``int``."""
    from pyarrow import Table, float64, int64, schema, string
    from pyarrow.parquet import write_table

    columns = {str: string(), int: int64(), float: float64()}
    kinds = {name: (get_args(hint) or (hint,))[0] for name, hint in get_type_hints(Result).items()}
    kinds |= {"id": id_kind, "error": str}
    write_table(Table.from_pylist(list(rows), schema([(name, columns[kind]) for name, kind in kinds.items()])), file)
