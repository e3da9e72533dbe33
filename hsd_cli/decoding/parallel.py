"""Drafting on while the target verifies, or several copies of it do: speculation parallelism (arXiv 2405.14105)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from time import perf_counter
from typing import Any, Protocol, TypeVar

import torch

from hsd_cli.drafting.draft_model import Patience
from hsd_cli.drafting.protocol import Draft, Drafter
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.model import LanguageModel
from hsd_cli.runtime.replicas import Replicas
from hsd_cli.runtime.side_stream import SideStream

CORES_PER_DRAFTERS = 4  # cores, for each that the drafter gets; it gets one in any case
T = TypeVar("T")


def shares_of_cores() -> tuple[int, int]:
    """The threads of PyTorch for a target and for a drafter that share a CPU."""
    threads = torch.get_num_threads()
    drafters = max(1, threads // CORES_PER_DRAFTERS)
    return max(1, threads - drafters), drafters


class Rhythm(Patience, Protocol):
    """The drafter's patience where the models work at the same time. All but ``interrupt`` and ``settle`` is called in
    turns.

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
        """The text has ``tokens`` more; whether they begin with the guess behind which the oldest draft was made whose
        guess was open, if there is one. If not, nothing becomes of those behind it, either.
        """


class ParallelDrafter:
    """``drafter`` in a thread of its own, which goes on behind a draft while the target checks it.

    It guesses that all of the draft will be accepted. If so, what it drafted meanwhile is the next draft, but for the
    first proposal: that is the guess at the token which the target adds (``guess``). Else it is cancelled, and what the
    drafter has read is taken back when it drafts next.

    Where the target is ``Replicas``, a copy that is at rest begins to check that next draft as soon as it is made, and
    the drafter goes on behind it. The copies only compute logits; drafts are judged in the order of the text, in the
    caller's thread.

    A draft is interrupted between two steps, by the time alone, never for what was drawn: ``ψ`` stays honest. Target
    and drafter must not share random numbers' source: what one draws has to say nothing about the other's coins.
    """

    def __init__(self, drafter: Drafter, rhythm: Rhythm, devices: tuple[torch.device, torch.device], size: int) -> None:
        """``devices``: the target's and the drafter's. ``size``: of the target's vocabulary."""
        self._drafter = drafter
        self._rhythm = rhythm
        self._target_device, drafting_device = devices
        self._size = size
        self._nothing = Draft(torch.empty(0, dtype=torch.int64, device=self._target_device))
        self._threads = drafters = torch.get_num_threads()
        if devices[0].type == devices[1].type == "cpu":
            self._threads, drafters = shares_of_cores()
        self._thread = ThreadPoolExecutor(1, "drafter", torch.set_num_threads, (drafters,))
        self._stream = SideStream(drafting_device)
        self._text: list[int] = []  # as the drafter has it: what was committed, and behind it the guess
        self._committed = 0
        self._lookahead = 0
        self._guess: list[int] = []  # what is being checked
        self._ahead: list[Draft] = []  # what was drafted behind that, the parts in a row
        self._begun = 0  # how many of them are being checked, too
        self._work: Future[Draft] | None = None  # the next of them
        self._width, self._since = 0, 0.0

    # --- for the loop ---

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        """What was drafted ahead, as far as ``text`` is what was guessed, else a new draft."""
        if not self._text:  # the target has read the prompt, with all cores
            torch.set_num_threads(self._threads)
        self._lookahead = lookahead
        ahead = self._settle(text)
        if len(ahead) or not lookahead or self._work is not None or self._ahead or not self._rhythm.waits():
            return ahead
        return self._start(lookahead, beside=0).result()

    def check(self, target: LanguageModel, fed: torch.Tensor, draft: Draft) -> torch.Tensor:
        """``target.run(fed)``, where ``fed`` ends with ``draft``; meanwhile the drafter drafts on behind it."""
        self._go_on(draft)
        if not isinstance(target, Replicas):
            return target.run(fed)
        running = target.start(fed.tolist())
        while not running.done():
            self._begin_passes(target)
            awaited: list[Future[Any]] = [running, *target.under_way]
            if self._work is not None:
                awaited.append(self._work)
            wait(awaited, return_when=FIRST_COMPLETED)
        logits = target.run(fed)
        self._since = perf_counter() - target.seconds  # it may have begun long ago
        return logits

    def guess(self) -> Draft:
        """At the end of the pass: a proposal for the token that the target adds if it accepts the draft, or none."""
        if self._target_device.type == "cuda":
            torch.cuda.current_stream(self._target_device).synchronize()
        seconds = perf_counter() - self._since
        if not self._ahead:
            self._interrupt()
        self._rhythm.observe_pass(self._width, seconds)
        return self._ahead[0].first(1) if self._ahead else self._nothing

    def drop(self) -> None:
        """Until the drafter is at rest; the thread of the target may then do with its memory what it likes. Nothing
        becomes of what was drafted ahead."""
        self._cancel()
        self._rhythm.settle(0, upheld=False)

    def during(self, commits: Generator[T], target: LanguageModel) -> Generator[T]:
        """``commits``, with the threads and their share of the cores until they end, however they do."""
        threads = torch.get_num_threads()
        try:
            yield from commits
        finally:
            self._rhythm.interrupt()
            self._thread.shutdown()
            if isinstance(target, Replicas):
                target.close()
            torch.set_num_threads(threads)

    # --- how ---

    def _settle(self, text: Sequence[int]) -> Draft:
        """Follows ``text``. Returns what was drafted behind it."""
        new, guess = list(text[self._committed :]), self._guess
        following = self._ahead[0] if self._ahead else None
        upheld = None if following is None else new[: len(guess)] == guess
        beyond = new[len(guess) :]
        goes_on = following is not None and upheld and following.first(len(beyond)).tokens.tolist() == beyond
        if not goes_on:
            self._cancel()
        self._rhythm.settle(len(new), upheld)
        if not goes_on and upheld:
            self._rhythm.settle(0, upheld=False)
        if not goes_on or not self._begun:  # else all of it is there
            self._text[self._committed :] = new
        self._committed = len(text)
        self._guess = []
        if following is None or not goes_on:
            return self._nothing
        del self._ahead[0]
        self._begun = max(0, self._begun - 1)
        rest = following.after(len(beyond))
        self._guess = rest.tokens.tolist()
        return rest

    def _go_on(self, draft: Draft) -> None:
        """Drafts behind ``draft``, which the target is about to check."""
        self._width, self._since = len(draft) + 1, perf_counter()
        guess = draft.tokens.tolist()
        if guess != self._guess and (self._ahead or self._work is not None):  # a shorter one: there was no room for it
            self.drop()
        self._guess = guess
        if not self._ahead and self._work is None:
            self._text[self._committed :] = guess
            self._draft_behind()

    def _draft_behind(self) -> None:
        possible = max(self._text[self._committed :], default=0) < self._size
        if self._lookahead and possible and self._rhythm.keeps_up(self._width):
            self._work = self._start(self._lookahead + 1, beside=self._width)

    def _begin_passes(self, target: Replicas) -> None:
        """Has a copy of the target that is at rest check what was drafted ahead, and drafts on behind it."""
        if self._work is not None and self._work.done():
            self._take()
        while self._begun < min(len(self._ahead), len(target) - 1):
            following = self._ahead[self._begun]
            tokens = following.tokens.tolist()
            text = [*self._text, *tokens]
            if not tokens or max(tokens) >= self._size or len(text) > target.context_size:
                return
            if not target.ahead(text, len(tokens)):
                return
            self._text, self._begun = text, self._begun + 1
            self._draft_behind()

    def _interrupt(self) -> None:
        """Until the drafter is at rest."""
        if self._work is not None:
            self._rhythm.interrupt()
            self._take()

    def _take(self) -> None:
        work, self._work = self._work, None
        assert work is not None
        self._ahead.append(work.result())

    def _cancel(self) -> None:
        self._interrupt()
        self._ahead, self._begun = [], 0

    def _start(self, lookahead: int, beside: int) -> Future[Draft]:
        self._rhythm.begin(beside)
        return self._thread.submit(self._run, lookahead)

    def _run(self, lookahead: int) -> Draft:
        """In the drafter's thread."""
        with torch.inference_mode(), self._stream.work(), self._rhythm.clock.phase("draft"):
            return self._drafter.draft(self._text, lookahead)
