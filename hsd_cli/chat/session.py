"""A chat at work: questions go to the engine, answers come back, and both are remembered."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator
from time import perf_counter

from hsd_cli.chat.conversation import PLAIN_STOP, Conversation, Turn
from hsd_cli.chat.interrupts import noticing_interrupts
from hsd_cli.chat.settings import Settings
from hsd_cli.decoding.loop import PLAIN, Commit
from hsd_cli.engine import Engine, Generation, Request
from hsd_cli.errors import HsdError
from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.ui.run_report import RunReport
from hsd_cli.vocab.tokenizer import ModelTokenizer, Rendered

MOST_ROOM = 1 / 4  # of the context that is kept free for an answer, if so much may be written


class Session:
    """The models, the settings and the conversation, which commands may replace between answers."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        conversation: Conversation,
        load_drafter: Callable[[str], LoadedModel],
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.conversation = conversation
        self.reports: list[RunReport] = []  # of all answers so far
        self._load_drafter = load_drafter

    @property
    def has_template(self) -> bool:
        """Whether the target has a chat template; without one the conversation is plain text."""
        return ModelTokenizer.of(self.engine.target).has_chat_template

    @property
    def models(self) -> dict[str, str]:
        """Names by role."""
        drafter = self.engine.drafter
        return {"target": self.engine.target.name} | ({} if drafter is None else {"drafter": drafter.name})

    def draft_with(self, name: str | None) -> None:
        """Takes another drafter, or none. Raises ``HsdError`` and keeps the old one if it cannot be loaded."""
        drafter = None if name is None else self._load_drafter(name)
        self.engine = Engine(self.engine.target, drafter, strict=self.engine.strict)

    def ask(self, question: str, again: bool = False) -> Answer:
        """An answer about to be written; with ``again`` it takes the last turn's place.

        The oldest turns are left out where the context would not hold them. Raises ``HsdError`` for what cannot be
        asked; the conversation is then as it was.
        """
        turns = len(self.conversation.turns) - again
        left_out = min(self.conversation.left_out, turns)
        request, left_out = self._fitting(question, turns, left_out)
        generation = self.engine.generate(request)
        return Answer(self, question, request, generation, turns, left_out)

    def _fitting(self, question: str, turns: int, left_out: int) -> tuple[Request, int]:
        """The request, and how many turns it leaves out: none more, or so many that the next turns will fit too."""
        size = self.engine.context_size
        limit = size - min(self.settings.max_new_tokens, int(size * MOST_ROOM))

        def request(left_out: int) -> Request:
            return self._request(self.conversation.before(turns, left_out), question)

        def fits(left_out: int) -> bool:
            asked = request(left_out)
            return not self.engine.is_far_too_long(asked) and len(self.engine.render(asked).ids) <= limit

        if not fits(left_out):
            limit -= int(size * MOST_ROOM)  # each turn that is left out has the rest read anew: not every time
            left_out += bisect_left(range(left_out, turns), True, key=fits)
        length = len(self.engine.render(request(left_out)).ids)
        if length >= size:
            raise HsdError(f"the message does not fit: {length} tokens, and the context holds {size}; shorten it")
        return request(left_out), left_out

    def _request(self, said: Conversation, question: str) -> Request:
        settings = self.settings
        chat = self.has_template
        return Request(
            prompt=said.messages(question) if chat else said.text(question),
            chat=chat,
            algorithm=settings.algorithm,
            lookahead=settings.lookahead,
            max_new_tokens=settings.max_new_tokens,
            sampling=settings.sampling,
            verification=settings.verification,
            seed=settings.seed,
            stops=settings.stop if chat else (*settings.stop, PLAIN_STOP),
            written=said.turns[-1].written if said.turns else None,
        )


class Answer:
    """Iterating over it writes it. What came of it is then part of the conversation, whole or not.

    It follows the first ``turns`` of the conversation; the models read them without the oldest ``left_out``.
    """

    def __init__(
        self,
        session: Session,
        question: str,
        request: Request,
        generation: Generation,
        turns: int,
        left_out: int,
    ) -> None:
        self.generation = generation
        self.left_out = left_out
        self.report: RunReport | None = None  # when it has ended, if anything was written
        self._session = session
        self._question = question
        self._request = request
        self._turns = turns

    def __iter__(self) -> Generator[Commit]:
        """Ctrl-C ends it after the iteration that is running, a second one at once (``KeyboardInterrupt``).

        Raises ``HsdError`` if the memory or the target fails.
        """
        texts: list[str] = []
        ids: list[int] = []
        reason = "interrupt"
        begun = perf_counter()
        try:
            with noticing_interrupts() as interrupted:
                for commit in self.generation.commits:
                    ids += [piece.token for piece in commit.pieces]
                    texts.append(commit.text)
                    reason = commit.finish_reason or reason
                    yield commit
                    if commit.finish_reason is None and interrupted():
                        break
                # What waited for the rest of a character or a stop string when Ctrl-C came.
                if rest := self.generation.text.finish():
                    texts.append(rest)
                    yield Commit((), PLAIN, 0, 0, perf_counter() - begun, rest)
        finally:
            if ids:
                self._remember("".join(texts), ids, reason, perf_counter() - begun)

    def _remember(self, text: str, ids: list[int], reason: str, seconds: float) -> None:
        session, generation = self._session, self.generation
        self.report = RunReport.of(session.engine, self._request, generation, text, ids, reason, seconds)
        session.reports.append(self.report)
        kept = ids[:-1] if reason == "eos" else ids  # the template ends the answer in its own way
        # Behind a stop string there are tokens that are no part of the answer.
        written = None if reason == "stop" else Rendered(generation.prompt.text + text, generation.prompt.ids + kept)
        said = session.conversation
        said.left_out = self.left_out
        said.turns[self._turns :] = [Turn(self._question, text, written)]
