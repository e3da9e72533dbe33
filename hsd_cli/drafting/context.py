"""The drafter's view of the text: its own ids, kept in step with what the target commits."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from hsd_cli.runtime.model import common_prefix
from hsd_cli.vocab.vocabulary import Vocabulary

# How far back the last word's beginning is looked for, and how far to go back in text without spaces, in tokens.
WORD_SEARCH = 8
UNSPACED_BACK_UP = 3


class Context(Protocol):
    """The ids that the drafter has to have read before it drafts."""

    ids: list[int]

    def commit(self, tokens: Sequence[int], drafted: Sequence[int]) -> int:
        """Appends the target's ``tokens``; ``drafted`` are the drafter's ids for the draft they were checked against.

        Returns how many leading ids of ``ids + drafted`` are still there.
        """


class MirroredContext:
    """For one shared vocabulary: the drafter reads the target's own ids (its ``size`` embeddings may be fewer)."""

    def __init__(self, prompt: Sequence[int], size: int) -> None:
        self._last = size - 1
        self.ids = [min(token, self._last) for token in prompt]

    def commit(self, tokens: Sequence[int], drafted: Sequence[int]) -> int:
        unchanged = len(self.ids) + common_prefix(tokens, drafted)
        self.ids.extend(min(token, self._last) for token in tokens)
        return unchanged


class TranslatedContext:
    """For two vocabularies: only new bytes are encoded, together with the unfinished word before them.

    Drafted ids that the target confirmed byte for byte stay as they are. The rest is encoded anew from the last place
    where a word begins, so that the drafter reads the segmentation it was trained on. The target may spread a character
    over several tokens: a drafter that cannot spell the parts reads it when it is whole.
    """

    def __init__(self, drafter: Vocabulary, target: Vocabulary, prompt: Sequence[int]) -> None:
        self._drafter = drafter
        self._target = target
        self._pending = b""  # at most three bytes
        self.ids = list(prompt)

    def commit(self, tokens: Sequence[int], drafted: Sequence[int]) -> int:
        new = self._pending + self._target.text_bytes(tokens)
        confirmed, read = self._confirmed(drafted, new)
        before = len(self.ids)
        self.ids.extend(drafted[:confirmed])
        readable = self._readable(new[read:])
        self._pending = new[read + len(readable) :]
        if not readable:
            return len(self.ids)
        start = self._unfinished_word()
        old = self.ids[start:]
        self.ids[start:] = self._drafter.encode(self._drafter.text_bytes(old) + readable)
        return min(start + common_prefix(old, self.ids[start:]), before + confirmed)

    def _confirmed(self, drafted: Sequence[int], new: bytes) -> tuple[int, int]:
        """How many drafted ids ``new`` begins with, and the number of bytes they spell."""
        read = 0
        for count, index in enumerate(drafted):
            spelled = self._drafter.token_bytes[index] if index < len(self._drafter) else None
            if not spelled or not new.startswith(spelled, read):
                return count, read
            read += len(spelled)
        return len(drafted), read

    def _readable(self, data: bytes) -> bytes:
        """``data``, less the character at its end that is not whole yet if the drafter lacks tokens for its bytes."""
        _, whole = codecs.utf_8_decode(data, "surrogateescape", False)
        known = self._drafter.ids_by_bytes
        return data if all(data[i : i + 1] in known for i in range(whole, len(data))) else data[:whole]

    def _unfinished_word(self) -> int:
        """Where to encode anew from: the last id that begins a word, in any case an id that begins a character."""
        fallback = len(self.ids)
        for index in range(len(self.ids) - 1, max(-1, len(self.ids) - 1 - WORD_SEARCH), -1):
            spelled = self._drafter.token_bytes[self.ids[index]] if self.ids[index] < len(self._drafter) else None
            if not spelled:
                break
            if spelled[:1].isspace():
                return index
            if len(self.ids) - index <= UNSPACED_BACK_UP and not 0x80 <= spelled[0] <= 0xBF:
                fallback = index
        return fallback
