"""The longest end of a text that was there before: a suffix automaton, O(1) amortised per token."""

from __future__ import annotations

from collections.abc import Iterable


class SuffixIndex:
    """Grows with a text (Blumer et al. 1985). One state stands for all substrings that end at the same places.

    ``match`` is the length of the longest suffix that occurs earlier, 0 if there is none, and ``after`` the index of
    what followed it there: where it was the longest match the last time, else where it first occurred.
    """

    def __init__(self) -> None:
        self._next: list[dict[int, int]] = [{}]
        self._link = [-1]
        self._longest = [0]
        self._end = [0]  # index after one occurrence
        self._last = 0
        self._length = 0
        self.match = 0
        self.after = 0

    def extend(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            self._append(token)

    def _append(self, token: int) -> None:
        self._length += 1
        state = self._new_state({}, self._length, self._length)
        link = self._last
        while link >= 0 and token not in self._next[link]:
            self._next[link][token] = state
            link = self._link[link]
        self._link[state] = 0 if link < 0 else self._state_of_exactly(link, token)
        self._last = state
        self._find()

    def _new_state(self, transitions: dict[int, int], longest: int, end: int) -> int:
        self._next.append(transitions)
        self._link.append(-1)
        self._longest.append(longest)
        self._end.append(end)
        return len(self._next) - 1

    def _state_of_exactly(self, before: int, token: int) -> int:
        """The state of ``before``'s longest substring followed by ``token``, split off if it has longer ones too."""
        found = self._next[before][token]
        if self._longest[found] == self._longest[before] + 1:
            return found
        clone = self._new_state(dict(self._next[found]), self._longest[before] + 1, self._end[found])
        self._link[clone], self._link[found] = self._link[found], clone
        while before >= 0 and self._next[before].get(token) == found:
            self._next[before][token] = clone
            before = self._link[before]
        return clone

    def _find(self) -> None:
        """The last state's link is the longest suffix that also ends elsewhere."""
        link = self._link[self._last]
        self.match, self.after = self._longest[link], self._end[link]
        self._end[link] = self._length  # next time, the occurrence of now is the latest one
