"""Names of special tokens in what people and models say, kept apart from the tokens that a chat template sets."""

from __future__ import annotations

import re
from collections.abc import Sequence

PRIVATE_USE = range(0xF0000, 0xFFFFE)


class Marks:
    """Characters that stand for special tokens' names in messages, so that a template cannot mix them up with its own.

    Only names that ``texts`` hold have one, a private-use character which none of ``texts`` holds.
    """

    def __init__(self, special_tokens: Sequence[str], texts: Sequence[str]) -> None:
        # Where several names fit, the longest is the token.
        self._names = "|".join(map(re.escape, sorted(filter(None, special_tokens), key=len, reverse=True)))
        found = {name for text in texts for name in re.findall(self._names, text)} if self._names else set()
        taken = set().union(*texts) if found else set()
        free = (chr(code) for code in PRIVATE_USE if chr(code) not in taken)
        self._mark_of = dict(zip(sorted(found), free, strict=False))
        self._name_of = {mark: name for name, mark in self._mark_of.items()}

    def put_into(self, text: str) -> str:
        """The text of a message with marks in the place of names."""
        return re.sub(self._names, lambda name: self._mark_of[name[0]], text) if self._mark_of else text

    def restored(self, marked: str) -> str:
        """The text with the names themselves again."""
        return marked.translate(str.maketrans(self._name_of))

    def after(self, marked: str, length: int) -> str | None:
        """What follows the first ``length`` characters of the restored text; ``None`` if they end within a name."""
        if not self._name_of:
            return marked[length:]
        position = 0
        for index, character in enumerate(marked):
            if position >= length:
                return marked[index:] if position == length else None
            position += len(self._name_of.get(character, character))
        return "" if position == length else None

    def split(self, marked: str) -> list[str]:
        """Alternating: what a tokenizer reads as usual, and what is plain text, restored; first and last the former.

        Plain text goes from a mark to the next special token, since tokenizers may put a space before a new beginning.
        """
        if not self._name_of:
            return [marked]
        parts = re.split(rf"([{''.join(self._name_of)}].*?(?={self._names}|\Z))", marked, flags=re.DOTALL)
        return [self.restored(part) for part in parts]
