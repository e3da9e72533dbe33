"""The drafter's view of the text: its own ids, kept in step with what the target commits."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from hsd_cli.runtime.model import common_prefix
from hsd_cli.vocab.vocabulary import Vocabulary

# How far back the last word's beginning is looked for, and how far to go back in text without spaces, in tokens.
WORD_SEARCH = 8
UNSPACED_BACK_UP = 3
COMMITS_BACK = 16  # that can be taken back: more than are ever guessed
# The same in tokens, and in bytes, for drafters that write a word's beginning or end in tokens of its own.
LONGEST_WORD = 64
SPACES = (b" ", b"\n", b"\t", b"\r")


class Context(Protocol):
    """The ids that the drafter has to have read before it drafts."""

    ids: list[int]

    def commit(self, tokens: Sequence[int], drafted: Sequence[int]) -> int:
        """Appends the target's ``tokens``; ``drafted`` are the drafter's ids for the draft they were checked against.

        Returns how many leading ids of ``ids + drafted`` are still there.
        """

    def undo(self) -> None:
        """Takes the last ``commit`` back that was not; up to ``COMMITS_BACK`` of them."""


class MirroredContext:
    """For one shared vocabulary: the drafter reads the target's own ids (its ``size`` embeddings may be fewer)."""

    def __init__(self, prompt: Sequence[int], size: int) -> None:
        self._last = size - 1
        self.ids = [min(token, self._last) for token in prompt]
        self._before: deque[int] = deque(maxlen=COMMITS_BACK)

    def commit(self, tokens: Sequence[int], drafted: Sequence[int]) -> int:
        self._before.append(len(self.ids))
        unchanged = len(self.ids) + common_prefix(tokens, drafted)
        self.ids.extend(min(token, self._last) for token in tokens)
        return unchanged

    def undo(self) -> None:
        del self.ids[self._before.pop() :]


@dataclass(frozen=True)
class _State:
    """Of a ``TranslatedContext``: ``changed`` followed the first ``kept`` ids."""

    kept: int
    changed: list[int]
    pending: bytes
    word: bytes
    word_ids: int


class TranslatedContext:
    """For two vocabularies: only new bytes are encoded, together with the unfinished word before them.

    Drafted ids that the target confirmed byte for byte stay as they are. The rest is encoded anew from the last place
    where a word begins, so that the drafter reads the segmentation it was trained on. The target may spread a character
    over several tokens: a drafter that cannot spell the parts reads it when it is whole.

    Some drafters' tokens do not spell what they stand for: they end every word with a space, or leave out a space until
    a word follows. Of these the last word is remembered as the target wrote it.
    """

    def __init__(self, drafter: Vocabulary, target: Vocabulary, prompt: Sequence[int]) -> None:
        self._drafter = drafter
        self._target = target
        self._pending = b""  # at most three bytes, or a space that no id stands for
        self._word, self._word_ids = b"", 0  # what the last ids stand for, if they do not spell it, and their number
        self._search = WORD_SEARCH if drafter.text_bytes(drafter.encode(b"ab")) == b"ab" else LONGEST_WORD
        self.ids = list(prompt)
        self._before: deque[_State] = deque(maxlen=COMMITS_BACK)

    def commit(self, tokens: Sequence[int], drafted: Sequence[int]) -> int:
        self._before.append(self._state(len(self.ids)))
        new = self._pending + self._target.text_bytes(tokens)
        confirmed, read = self._confirmed(drafted, new)
        before = len(self.ids)
        if confirmed:
            self.ids.extend(drafted[:confirmed])
            self._word, self._word_ids = b"", 0
        readable = self._readable(new[read:])
        self._pending = new[read + len(readable) :]
        if not readable:
            return len(self.ids)
        start = len(self.ids) - self._word_ids if self._word else self._unfinished_word()
        self._before[-1] = replace(self._before[-1], kept=min(start, before), changed=self.ids[start:before])
        old = self.ids[start:]
        self.ids[start:] = self._encode((self._word or self._drafter.text_bytes(old)) + readable)
        return min(start + common_prefix(old, self.ids[start:]), before + confirmed)

    def undo(self) -> None:
        before = self._before.pop()
        self.ids[before.kept :] = before.changed
        self._pending, self._word, self._word_ids = before.pending, before.word, before.word_ids

    def _state(self, kept: int) -> _State:
        return _State(kept, [], self._pending, self._word, self._word_ids)

    def _encode(self, data: bytes) -> list[int]:
        """The ids for the end of the text; remembers its last word if they do not spell it."""
        ids = self._drafter.encode(data)
        self._word, self._word_ids = b"", 0
        if self._drafter.text_bytes(ids) != data:
            word = data[max(0, *map(data.rfind, SPACES)) :]
            if b"\x80" not in self._drafter.first_ids:  # then what is no character is nothing to it
                word = word.decode("utf-8", "ignore").encode()
            alone = self._drafter.encode(word)
            if word.isspace() and not alone:
                self._pending = word + self._pending
            elif len(word) <= LONGEST_WORD and ids[len(ids) - len(alone) :] == alone:
                self._word, self._word_ids = word, len(alone)
        return ids

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
        known = self._drafter.first_ids
        return data if all(data[i : i + 1] in known for i in range(whole, len(data))) else data[:whole]

    def _unfinished_word(self) -> int:
        """Where to encode anew from: the last id that begins a word, in any case an id that begins a character."""
        fallback = len(self.ids)
        for index in range(len(self.ids) - 1, max(-1, len(self.ids) - 1 - self._search), -1):
            spelled = self._drafter.token_bytes[self.ids[index]] if self.ids[index] < len(self._drafter) else None
            if not spelled:
                break
            if spelled[:1].isspace():
                return index
            if len(self.ids) - index <= UNSPACED_BACK_UP and not 0x80 <= spelled[0] <= 0xBF:
                fallback = index
        return fallback
