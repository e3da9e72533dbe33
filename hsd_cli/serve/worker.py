"""The thread that the engine lives in: it writes as many texts at a time as there are seats, and hands on what comes.

Whoever asks for a text is in an event loop of asyncio; the engine is only ever touched from here.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Condition, Thread
from traceback import print_exception

from hsd_cli.batch_engine import BatchEngine, Happening, Text
from hsd_cli.decoding.loop import Commit
from hsd_cli.engine import Generation, Request
from hsd_cli.errors import HsdError, with_another_prompt, without_drafter

ENDED = "the server is ending"
Watch = Callable[["Job", Commit | Exception], None]


class BusyError(HsdError):
    """As many texts wait as may."""


class Job:
    """One text of an order."""

    def __init__(self, order: Order, index: int, request: Request, watch: Watch) -> None:
        self.index = index
        self.request = request
        self.generation: Generation | None = None  # there from the first commit on
        self.given_up = False
        self.ended = False
        self.failed = False
        self._order = order
        self._watch = watch

    def put(self, event: Commit | Exception) -> None:
        """Called from the engine's thread."""
        self._order.loop.call_soon_threadsafe(self._arrive, event)

    def _arrive(self, event: Commit | Exception) -> None:
        if self.given_up:  # it was under way to somebody who does not wait any more
            return
        self.failed = isinstance(event, Exception)
        self.ended = isinstance(event, Exception) or event.finish_reason is not None
        self._watch(self, event)
        self._order.events.put_nowait((self.index, event))


class Order:
    """Texts that somebody waits for together, in the event loop that runs where this is made.

    Each one's ``watch`` is called there with whatever comes, at once, whether anybody reads it or not.
    """

    def __init__(self, requests: Sequence[Request], make_watch: Callable[[], Watch]) -> None:
        self.loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[tuple[int, Commit | Exception]] = asyncio.Queue()
        self.jobs = [Job(self, index, request, make_watch()) for index, request in enumerate(requests)]

    async def next(self) -> tuple[int, Commit]:
        """The next iteration of any text, and which one's; each one's last has a ``finish_reason``.

        Raises what ended a text instead.
        """
        index, event = await self.events.get()
        if isinstance(event, Exception):
            raise event
        return index, event


class Worker:
    """Call ``start``, and ``stop`` before the event loop ends. ``ready`` fails where the engine cannot write.

    ``make_engine`` is called in the thread, and ``trial`` is the first text. At most ``most_waiting`` texts wait for a
    seat. ``tell`` gets lines on what should not have happened, in the thread.
    """

    def __init__(
        self, make_engine: Callable[[], BatchEngine], trial: Request, most_waiting: int, tell: Callable[[str], None]
    ) -> None:
        self.ready: Future[None] = Future()
        self._make_engine = make_engine
        self._trial = trial
        self._most_waiting = most_waiting
        self._tell = tell
        self._seats = 0
        self._changed = Condition()
        self._stopping = False
        self._drafter_lost = self._drafter_refused = False
        self._waiting: deque[Job] = deque()
        self._running: dict[Text, Job] = {}
        self._thread = Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Gives up what is not finished; returns when the thread has ended."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether texts that are asked for will be written."""
        return not self._stopping

    @property
    def waiting(self) -> int:
        """How many texts have no seat yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many texts are being written."""
        return len(self._running)

    @property
    def room(self) -> int:
        """How many texts there can be at once, written and waiting."""
        return self._seats + self._most_waiting

    def submit(self, requests: Sequence[Request], make_watch: Callable[[], Watch]) -> Order:
        """All of them, or none: raises ``BusyError``, and ``HsdError`` if the thread has ended."""
        order = Order(requests, make_watch)
        with self._changed:
            if self._stopping:
                raise HsdError(ENDED)
            if self.waiting + self.running + len(requests) > self.room:
                raise BusyError(f"{self.waiting} texts are waiting already; try again later")
            self._waiting.extend(order.jobs)
            self._changed.notify()
        return order

    def give_up(self, order: Order) -> None:
        """Nobody waits for it any more. No harm if all of it has ended."""
        with self._changed:
            for job in order.jobs:
                job.given_up = True
                if job in self._waiting:
                    self._waiting.remove(job)

    def _run(self) -> None:
        try:
            engine = self._make_engine()
            self._try_out(engine)
        except BaseException as error:
            self.ready.set_exception(error)
            return
        self._seats = engine.size
        self.ready.set_result(None)
        try:
            while self._take_seats(engine):
                for text, event in self._step(engine):
                    self._hand_on(text, event)
        finally:  # nobody waits for a thread that has ended, whatever ended it
            with self._changed:
                self._stopping = True
                left = [*self._running.values(), *self._waiting]
            for job in left:
                job.put(HsdError(ENDED))

    def _take_seats(self, engine: BatchEngine) -> bool:
        """Waits until there is something to write; false at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._waiting or self._running)
            for text, job in list(self._running.items()):
                if job.given_up or self._stopping:
                    engine.end(text)
                    del self._running[text]
            while engine.free and self._waiting and not self._stopping:
                job = self._waiting.popleft()
                self._running[engine.begin(job.request)] = job
            return not self._stopping

    def _step(self, engine: BatchEngine) -> list[Happening]:
        """What no single text is to blame for ends them all; those to come have another chance."""
        try:
            return engine.step()
        except Exception as error:
            for text in list(engine.texts):
                engine.end(text)
            return [(text, error) for text in self._running]

    def _hand_on(self, text: Text, event: Commit | Exception) -> None:
        job = self._running[text]
        job.generation = text.generation
        if isinstance(event, Exception) or event.finish_reason is not None:
            with self._changed:
                del self._running[text]
            self._tell_of_drafter(text)
        if isinstance(event, Exception) and not isinstance(event, HsdError):
            self._tell(f"a text failed: {type(event).__name__}: {event} (HSD_DEBUG=1 shows where)")
            if os.environ.get("HSD_DEBUG"):
                print_exception(event)
        job.put(event)

    def _tell_of_drafter(self, text: Text) -> None:
        """Once, for it stays lost, and so does what its template is."""
        if text.generation is None:
            return
        refusal = text.generation.statistics.drafter_refusal
        if refusal and not self._drafter_refused:
            self._drafter_refused = True
            self._tell(with_another_prompt(refusal))
        failure = text.generation.statistics.drafter_failure
        if failure and not self._drafter_lost:
            self._drafter_lost = True
            self._tell(without_drafter(failure))

    def _try_out(self, engine: BatchEngine) -> None:
        """Writes a text, so that what cannot work is known before anybody asks. Raises what it fails with."""
        text = engine.begin(self._trial)
        while engine.texts:
            for _, event in engine.step():
                if isinstance(event, Exception):
                    raise event
        self._tell_of_drafter(text)
