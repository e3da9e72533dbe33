"""What was said so far, and which part of it the models still read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsd_cli.vocab.tokenizer import Message, Rendered

# Turns for a model without a chat template. Line ends around the marks keep tokens from spanning a seam.
USER_MARK = "User:\n"
ASSISTANT_MARK = "Assistant:\n"
PLAIN_STOP = "\n" + USER_MARK.rstrip("\n")  # where such a model begins to write the user's part


@dataclass(frozen=True)
class Turn:
    """A question and its answer, whole or not. ``written``: all that the target read and wrote until then."""

    question: str
    answer: str
    written: Rendered | None = field(default=None, compare=False)


@dataclass
class Conversation:
    """The turns from first to last. The oldest ``left_out`` of them are kept, but not read by the models any more."""

    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    left_out: int = 0

    def before(self, turn: int, left_out: int) -> Conversation:
        """What it was before a turn (from 0), with that many of the oldest turns left out."""
        return Conversation(self.system, self.turns[:turn], left_out)

    def messages(self, question: str) -> list[Message]:
        """What the models read, for their chat templates: the system prompt, the turns, and a new question."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        said = [
            message
            for turn in self.turns[self.left_out :]
            for message in (
                {"role": "user", "content": turn.question},
                {"role": "assistant", "content": turn.answer},
            )
        ]
        return [*system, *said, {"role": "user", "content": question}]

    def text(self, question: str) -> str:
        """The same as plain text, ready for the answer."""
        system = "" if self.system is None else f"{self.system}\n\n"
        said = "".join(f"{USER_MARK}{t.question}\n{ASSISTANT_MARK}{t.answer}\n" for t in self.turns[self.left_out :])
        return f"{system}{said}{USER_MARK}{question}\n{ASSISTANT_MARK}"

    def remove_last(self) -> Turn:
        """Takes back the last turn; turns that were left out are read again when none else is left."""
        turn = self.turns.pop()
        self.left_out = min(self.left_out, max(0, len(self.turns) - 1))
        return turn

    def clear(self) -> None:
        """Forgets the turns and keeps the system prompt."""
        self.turns.clear()
        self.left_out = 0
