"""The Tab key: commands and what they take."""

from __future__ import annotations

from collections.abc import Iterable

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from hsd_cli.chat.commands import ALIASES, COMMANDS
from hsd_cli.chat.entry import SLASH


class CommandCompleter(Completer):
    """Completes lines that begin with a slash; messages are left alone."""

    def __init__(self) -> None:
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        before = document.text_before_cursor
        if not before.startswith(SLASH) or "\n" in before:
            return
        *words, current = before.removeprefix(SLASH).split(" ")
        if not words:
            yield from _beginning_with(current, (f"{name} " if COMMANDS[name].takes else name for name in COMMANDS))
            return
        command = COMMANDS.get(ALIASES.get(words[0], words[0]))
        if command is not None and command.file:
            yield from self._files.get_completions(Document(before.partition(" ")[2]), complete_event)
        elif command is not None:
            given = [word for word in words[1:] if word]
            more = " " if len(given) < command.takes.count(" ") else ""
            yield from _beginning_with(current, (value + more for value in command.values(given)))


def _beginning_with(current: str, words: Iterable[str]) -> Iterable[Completion]:
    return (Completion(word, -len(current)) for word in words if word.startswith(current))
