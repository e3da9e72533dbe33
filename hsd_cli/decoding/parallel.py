"""Drafting on while the target verifies: speculation parallelism (arXiv 2405.14105), with one target."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Protocol, TypeVar

import torch

from hsd_cli.drafting.draft_model import Patience
from hsd_cli.drafting.protocol import Draft, Drafter
from hsd_cli.runtime.clock import PhaseClock

CORES_PER_DRAFTERS = 4  # cores, for each that the drafter gets; it gets one in any case
T = TypeVar("T")


class Rhythm(Patience, Protocol):
    """The drafter's patience where the two models work at the same time. All but ``interrupt`` is called in turns.

    ``clock`` is the drafter's own.
    """

    clock: PhaseClock

    def waits(self) -> bool:
        """Whether the target waits for a draft where it has none, or goes on without."""

    def keeps_up(self, width: int) -> bool:
        """Whether a drafter step takes less time than a target pass over ``width`` tokens."""

    def begin(self, width: int) -> None:
        """Called before each draft: it is made beside a pass over ``width`` tokens, or while the target waits if 0."""

    def interrupt(self) -> None:
        """The target's pass is over: the draft ends after the step at hand. Called from the target's thread."""

    def observe_pass(self, width: int, seconds: float) -> None:
        """What a pass of the target took."""

    def settle(self, tokens: int, upheld: bool | None) -> None:
        """The text has ``tokens`` more; whether they begin with the guess behind which the last draft was made, if it
        was made behind one.
        """


class ParallelDrafter:
    """``drafter`` in a thread of its own, which goes on behind a draft while the target checks it.

    It guesses that all of the draft will be accepted. If so, what it drafted meanwhile is the next draft, but for the
    first proposal: that is the guess at the token which the target adds (``guess``). Else it is cancelled, and what the
    drafter has read is taken back when it drafts next.

    A draft is interrupted between two steps, by the time alone, never for what was drawn: ``ψ`` stays honest. Target
    and drafter must not share random numbers' source: what one draws has to say nothing about the other's coins.
    """

    def __init__(self, drafter: Drafter, rhythm: Rhythm, devices: tuple[torch.device, torch.device], size: int) -> None:
        """``devices``: the target's and the drafter's. ``size``: of the target's vocabulary."""
        self._drafter = drafter
        self._rhythm = rhythm
        self._target_device, self._device = devices
        self._size = size
        self._nothing = Draft(torch.empty(0, dtype=torch.int64, device=self._target_device))
        self._threads = drafters = torch.get_num_threads()
        if devices[0].type == devices[1].type == "cpu":
            drafters = max(1, self._threads // CORES_PER_DRAFTERS)
            self._threads = max(1, self._threads - drafters)
        self._thread = ThreadPoolExecutor(1, "drafter", torch.set_num_threads, (drafters,))
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._text: list[int] = []  # as the drafter has it: what was committed, and behind it the guess
        self._committed = 0
        self._lookahead = 0
        self._work: Future[Draft] | None = None
        self._following: Draft | None = None  # what was drafted behind the guess
        self._width, self._since = 0, 0.0

    # --- for the loop ---

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        """What was drafted ahead, as far as ``text`` is what was guessed, else a new draft."""
        if not self._text:  # the target has read the prompt, with all cores
            torch.set_num_threads(self._threads)
        self._lookahead = lookahead
        ahead = self._settle(text)
        if len(ahead) or not lookahead or not self._rhythm.waits():
            return ahead
        self._start(lookahead, beside=0)
        work, self._work = self._work, None
        assert work is not None
        return work.result()

    def go_on(self, draft: Draft) -> None:
        """Drafts behind ``draft``, which the target is about to check."""
        if self._following is not None:  # there was no memory for the pass
            self._following = None
            self._rhythm.settle(0, upheld=False)
        self._width, self._since = len(draft) + 1, perf_counter()
        guess = draft.tokens.tolist()
        self._text[self._committed :] = guess
        if self._lookahead and self._rhythm.keeps_up(self._width) and max(guess, default=0) < self._size:
            self._start(self._lookahead + 1, beside=self._width)

    def guess(self) -> Draft:
        """At the end of the pass: a proposal for the token that the target adds if it accepts the draft, or none."""
        if self._target_device.type == "cuda":
            torch.cuda.current_stream(self._target_device).synchronize()
        seconds = perf_counter() - self._since
        following = self.wait()
        self._rhythm.observe_pass(self._width, seconds)
        return self._nothing if following is None else following.first(1)

    def wait(self) -> Draft | None:
        """Until the drafter is at rest; the thread of the target may then do with its memory what it likes."""
        if self._work is not None:
            self._rhythm.interrupt()
            work, self._work = self._work, None
            self._following = work.result()
        return self._following

    def during(self, commits: Generator[T]) -> Generator[T]:
        """``commits``, with the thread and its share of the cores until they end, however they do."""
        threads = torch.get_num_threads()
        try:
            yield from commits
        finally:
            self._rhythm.interrupt()
            self._thread.shutdown()
            torch.set_num_threads(threads)

    # --- how ---

    def _settle(self, text: Sequence[int]) -> Draft:
        """Follows ``text``. Returns what of the last draft comes after it."""
        following = self.wait()
        self._following = None
        new, guess = list(text[self._committed :]), self._text[self._committed :]
        upheld = None if following is None else new[: len(guess)] == guess
        self._rhythm.settle(len(new), upheld)
        self._text[self._committed :] = new
        self._committed = len(text)
        beyond = new[len(guess) :]
        if following is None or not upheld or following.first(len(beyond)).tokens.tolist() != beyond:
            return self._nothing
        return following.after(len(beyond))

    def _start(self, lookahead: int, beside: int) -> None:
        self._rhythm.begin(beside)
        self._work = self._thread.submit(self._run, lookahead)

    def _run(self, lookahead: int) -> Draft:
        """In the drafter's thread."""
        with torch.inference_mode(), self._own_stream(), self._rhythm.clock.phase("draft"):
            return self._drafter.draft(self._text, lookahead)

    @contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Whose work is done at the end: the target's stream may read what came of it."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield
            self._stream.synchronize()
