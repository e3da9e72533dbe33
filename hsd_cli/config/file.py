"""Reading and editing the configuration file; what its owner wrote around the values stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.exceptions import TOMLKitError

from hsd_cli.config.keys import PAIRS, split_key
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.storage import alone_in, write_atomically


class ConfigFile:
    """The file at ``path``; one that does not exist is empty. Raises ``UsageError`` for what is not TOML."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._document = self._read()

    @property
    def options(self) -> dict[str, Any]:
        """The values outside of pairs, as plain Python."""
        return {key: value for key, value in self._document.unwrap().items() if key != PAIRS}

    @property
    def pairs(self) -> dict[str, dict[str, Any]]:
        """Of each pair by its name, as plain Python. Raises ``UsageError`` where something else is in their place."""
        pairs = self._document.unwrap().get(PAIRS, {})
        self._expect_table(PAIRS, pairs)
        for name, values in pairs.items():
            self._expect_table(f"{PAIRS}.{name}", values)
        return dict(pairs)

    def set(self, key: str, value: str | int | float | bool) -> None:
        """Writes the file with ``value`` at ``key``."""
        *tables, last = split_key(key)

        def edit(table: Any) -> None:
            for depth, name in enumerate(tables, 1):
                table = table.setdefault(name, {})
                self._expect_table(".".join(tables[:depth]), table)
            table[last] = value

        with self._alone():
            self._rewrite(edit)

    def unset(self, key: str) -> bool:
        """Writes the file without ``key``, or without the whole pair ``pairs.NAME``; false if it was not there."""
        with self._alone():
            return self._without(key)

    def _without(self, key: str) -> bool:
        plain: Any = self._document.unwrap()
        pairs = plain.get(PAIRS)
        name = key.removeprefix(f"{PAIRS}.")
        whole_pair = key != name and isinstance(pairs, dict) and name in pairs
        *tables, last = [PAIRS, name] if whole_pair else split_key(key)
        for table in tables:
            plain = plain.get(table) if isinstance(plain, dict) else None
        if not isinstance(plain, dict) or last not in plain:
            return False

        def edit(document: Any) -> None:
            inside = [document]
            for table in tables:
                inside.append(inside[-1][table])
            del inside[-1][last]
            for table in reversed(tables):
                if not inside.pop():  # an empty pair is none
                    del inside[-1][table]

        self._rewrite(edit)
        return True

    def _expect_table(self, key: str, value: object) -> None:
        if not isinstance(value, Mapping):
            raise UsageError(f"{key!r} in {str(self.path)!r} must be a table; correct or remove it")

    def _rewrite(self, edit: Callable[[Any], None]) -> None:
        expected = self._document.unwrap()
        edit(expected)
        edit(self._document)
        text = tomlkit.dumps(self._document)
        if tomlkit.parse(text).unwrap() != expected:  # a table in several places, for one, is more than tomlkit edits
            raise HsdError(f"the form of {str(self.path)!r} is too intricate to edit; please do it by hand")
        # The file itself where the path is a link to it, as dotfiles often are.
        write_atomically(self.path.resolve(), text.encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """For an edit of what is in the file now, when nobody else edits it."""
        try:
            with alone_in(self.path.resolve().parent):
                self._document = self._read()
                yield
        except OSError as error:
            raise HsdError(f"cannot write the configuration {str(self.path)!r}: {error.strerror}") from error

    def _read(self) -> TOMLDocument:
        try:
            return tomlkit.parse(self.path.read_bytes().decode())
        except FileNotFoundError:
            return tomlkit.document()
        except OSError as error:
            raise UsageError(f"cannot read the configuration {str(self.path)!r}: {error.strerror}") from error
        except (TOMLKitError, UnicodeDecodeError) as error:
            raise UsageError(f"{str(self.path)!r} is not valid TOML: {error}; correct or remove it") from error
