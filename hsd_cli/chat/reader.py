"""Where what is typed comes from: a terminal with an editor for lines, or lines as they come."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

from hsd_cli.chat.completion import CommandCompleter
from hsd_cli.chat.entry import is_open
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.storage import make_private

PROMPT = ">>> "
CONTINUATION = "... "


class Reader(Protocol):
    """``interactive``: somebody sits there, who can correct what was wrong."""

    interactive: bool

    def read(self, keep: bool) -> str:
        """What was typed next: a line, or a block of them; ``keep``: in the history. Raises ``EOFError``."""

    def edit(self, text: str) -> str:
        """``text`` as it came back from the user's editor. Raises ``UsageError`` where there is none."""


class LineReader:
    """Lines from a pipe, or from a terminal that can do no more.

    What is no UTF-8 is replaced after ``repairing`` was called; without it ``read`` raises ``HsdError``.
    """

    def __init__(self, lines: BinaryIO, interactive: bool, repairing: Callable[[], None] | None) -> None:
        self.interactive = interactive
        self._lines = lines
        self._repairing = repairing

    def read(self, keep: bool) -> str:
        text = self._line(PROMPT)
        while is_open(text) and (more := self._line(CONTINUATION)):
            text += more
        if not text:
            raise EOFError
        return text

    def edit(self, text: str) -> str:
        raise UsageError("an editor needs a terminal that can move its cursor")

    def _line(self, prompt: str) -> str:
        if self.interactive:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        line = self._lines.readline()
        try:
            return line.decode("utf-8-sig")
        except UnicodeDecodeError:
            if self._repairing is None:
                raise HsdError(
                    "the line is not valid UTF-8; convert it, as with iconv, or leave --strict out"
                ) from None
            self._repairing()
            return line.decode("utf-8-sig", "replace")


class TerminalReader:
    """An editor for lines, with completion and history. Ctrl-C raises ``KeyboardInterrupt`` where nothing is typed."""

    interactive = True

    def __init__(self, history: PrivateHistory) -> None:
        self._history = history
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            completer=CommandCompleter(),
            complete_while_typing=False,
            history=history,
            key_bindings=_keys(),
            enable_open_in_editor=True,
            enable_suspend=True,
            tempfile_suffix=".md",
            output=create_output(always_prefer_tty=True),  # standard output may be a file
        )

    def read(self, keep: bool) -> str:
        self._history.wanted = keep
        return _valid(self._session.prompt())

    def edit(self, text: str) -> str:
        def open_editor() -> None:
            get_app().current_buffer.open_in_editor(validate_and_handle=True)

        return _valid(self._session.prompt(default=text, pre_run=open_editor))


class PrivateHistory(FileHistory):
    """What was typed before, in a file for the user's eyes alone, while it is ``wanted``. Raises ``HsdError``."""

    def __init__(self, path: Path, wanted: bool) -> None:
        super().__init__(str(path))
        self._path = path
        self.wanted = wanted
        if wanted:
            try:
                self._make_private()
            except OSError as error:
                raise HsdError(f"cannot write {str(path)!r}: {error.strerror}; use --no-history") from error

    def load_history_strings(self) -> Iterable[str]:
        return super().load_history_strings() if self.wanted else []

    def store_string(self, string: str) -> None:
        if self.wanted:
            with suppress(OSError):  # a full disk: a line less in the history is no reason to lose what was typed
                self._make_private()
                super().store_string(string)

    def _make_private(self) -> None:
        make_private(self._path.parent)
        os.close(os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        self._path.chmod(0o600)


def _keys() -> KeyBindings:
    keys = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # and not searching the history

    @keys.add("enter", filter=typing)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=typing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c", filter=typing)
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return keys


def _valid(text: str) -> str:
    """``text`` with its invalid bytes replaced, which come as surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
