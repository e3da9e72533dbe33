"""Several texts at a time with one pair: each has a seat, and as one ends its seat is free for the next.

They share forward passes and nothing else: each has its own caches, drafts, accepted lengths and random numbers, so
that none depends on the company it keeps.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import torch
from greenlet import getcurrent, greenlet

from hsd_cli.decoding.loop import Commit
from hsd_cli.engine import Company, Engine, Generation, Request
from hsd_cli.planner.costs import MARGINAL_GUESS, Costs, SharedCosts
from hsd_cli.planner.experience import Experience
from hsd_cli.runtime.host import WaitingTogether
from hsd_cli.runtime.joint import JointPasses, Pass

MOST_EXPERIENCES = 64  # a server's clients may ask for what they like


@dataclass(eq=False)
class Text:
    """A text on its seat. ``generation`` is there once its prompt was found to fit."""

    request: Request
    seat: Engine
    writer: greenlet = field(repr=False)
    generation: Generation | None = None


Happening = tuple[Text, Commit | Exception]


class BatchEngine:
    """Writes up to ``size`` texts at a time with the models of ``pair``. Use it from one thread."""

    def __init__(self, pair: Engine, size: int) -> None:
        self.size = size
        self._target_passes, self._drafter_passes = JointPasses(), JointPasses()
        # On a CPU there is nothing to wait for.
        self._waits = WaitingTogether() if pair.target.model.device.type == "cuda" and size > 1 else None
        self._costs = Costs(1.0, MARGINAL_GUESS / size)
        self._experiences: dict[Hashable, Experience] = {}
        joint = {"target": self._target_passes, "drafter": self._drafter_passes} if size > 1 else {}
        company = Company(joint, self._experience)
        self._seats = [pair.beside(company) for _ in range(size)]
        self._texts: list[Text] = []
        self._ready: list[Text] = []
        self._happened: list[Happening] = []
        self._last: Pass | None = None
        self._busy = 0.0

    def _experience(self, request: Request, step: float) -> Experience:
        """One for all texts that are drafted alike."""
        key = request.algorithm, request.lookahead, request.sampling, request.verification
        if key not in self._experiences:
            if len(self._experiences) == MOST_EXPERIENCES:
                del self._experiences[next(iter(self._experiences))]  # the oldest
            alone = self.size == 1
            costs = Costs(step) if alone else SharedCosts(step, self._costs, lambda: len(self._texts))
            self._experiences[key] = Experience(costs, self.size)
        return self._experiences[key]

    @property
    def free(self) -> int:
        """How many more texts can begin."""
        return self.size - len(self._texts)

    @property
    def texts(self) -> Sequence[Text]:
        """Those that are being written."""
        return self._texts

    def begin(self, request: Request) -> Text:
        """Takes a free seat for a text; ``step`` writes it."""
        seat = self._seats.pop()
        text = Text(request, seat, greenlet(lambda: self._write(text)))
        self._texts.append(text)
        self._ready.append(text)
        return text

    def end(self, text: Text) -> None:
        """Gives up a text, if it has not ended."""
        text.writer.throw()
        if text in self._texts:  # it had not begun
            self._leave(text)

    def shrink(self) -> None:
        """Goes on with no more texts at a time than there are now, at least one; what the other seats hold is freed."""
        del self._seats[0 if self._texts else 1 :]
        self.size = len(self._texts) or 1
        for passes in (self._target_passes, self._drafter_passes):
            passes.trim()

    @torch.inference_mode()
    def step(self) -> list[Happening]:
        """Writes on until something has happened; nothing does if there are no texts.

        That is an iteration of a text, or why it cannot go on: ``HsdError``, or what else was raised. A text has ended
        with its failure, or with a commit that has a ``finish_reason``.
        """
        while self._texts and not self._happened:
            begun = perf_counter()
            if self._ready:
                ready, self._ready = self._ready, []
                for text in ready:
                    text.writer.switch()
            elif self._waits:
                self._waits.run()
            else:
                self._observe()
                drafting = len(self._drafter_passes) > 0
                done = (self._drafter_passes if drafting else self._target_passes).run()
                if not drafting:
                    self._last = done
            self._busy += perf_counter() - begun
        happened, self._happened = self._happened, []
        return happened

    def _observe(self) -> None:
        """What the last pass of the target took, with all that each text had to do until it needed the next one."""
        if self._last is not None and self._last.drafts:
            self._costs.observe_pass(self._last.tokens, self._busy)
        self._last, self._busy = None, 0.0

    def _write(self, text: Text) -> None:
        """The body of a text's greenlet."""
        if self._waits is not None:
            self._waits.join()
        try:
            text.generation = text.seat.generate(text.request)
            for commit in text.generation.commits:
                self._happened.append((text, commit))
                if commit.finish_reason is None:
                    self._stand_back(text)
        except Exception as error:  # whatever it is, the others go on, and the caller is told
            self._happened.append((text, error))
        finally:
            self._leave(text)

    def _stand_back(self, text: Text) -> None:
        """For whoever called ``step``, who comes back to go on."""
        self._ready.append(text)
        parent = getcurrent().parent
        assert parent is not None
        parent.switch()

    def _leave(self, text: Text) -> None:
        self._texts.remove(text)
        self._seats.append(text.seat)
        if text in self._ready:
            self._ready.remove(text)
