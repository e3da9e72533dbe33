"""From tokens to text that can be shown at once: whole characters only, and nothing past a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from hsd_cli.vocab.vocabulary import Vocabulary


class TextStream:
    """Incremental detokenization. Text is held back while it may still become a character or a stop string.

    A stop string that is a special token's name means that token, which writes no text.
    ``drop_leading_space``: the first token's space belongs to the tokenizer (SentencePiece), not to the answer.
    """

    def __init__(self, vocabulary: Vocabulary, stops: Sequence[str] = (), drop_leading_space: bool = False) -> None:
        self._token_bytes = vocabulary.token_bytes
        self._stops = [stop.encode() for stop in stops]
        self._stop_ids = vocabulary.special_ids(stops)
        self._drop_space = drop_leading_space
        self._held = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that ``token`` completes. Once ``stopped``, nothing more comes."""
        spelled = self._token_bytes[token] if token < len(self._token_bytes) else None
        if not self.stopped and token in self._stop_ids:
            self.stopped = True
            return self._release(len(self._held), final=True)
        if self.stopped or not spelled:
            return ""
        if self._drop_space:
            spelled, self._drop_space = spelled.removeprefix(b" "), False
        self._held += spelled
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found), final=True)
        return self._release(len(self._held) - self._possible_stop())

    def finish(self) -> str:
        """What was held back, at the end of the text."""
        return "" if self.stopped else self._release(len(self._held), final=True)

    def _release(self, count: int, final: bool = False) -> str:
        ready, self._held = self._held[:count], self._held[count:]
        return self._decoder.decode(ready, final)

    def _possible_stop(self) -> int:
        """Length of the longest end of the held text with which some stop string begins."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
