"""Drafting on while the target checks: whatever the timing, the text is what it was without."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsd_cli.decoding.loop import Commit, Limits, decode
from hsd_cli.decoding.parallel import ParallelDrafter
from hsd_cli.decoding.sampling import Warper
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.decoding.statistics import Statistics
from hsd_cli.decoding.text import TextStream
from hsd_cli.decoding.verification import Coupled, Randomness, Rejection, Verdict, VerificationRule
from hsd_cli.drafting.context import TranslatedContext
from hsd_cli.drafting.protocol import Draft, Drafter
from hsd_cli.drafting.registry import ALGORITHMS, Pair, Side
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.model import LanguageModel
from hsd_cli.runtime.replicas import Replicas
from tests.breadth import breadth
from tests.enumeration import EnumeratedRandomness, law
from tests.laws import SETTINGS, TinyPair, exact_law, tiny_pair, token_ids
from tests.test_losslessness import HETEROGENEOUS, ForgetsTheResidual, fit, largest_difference
from tests.tiny import END, TableModel, vocabulary

DRAFTING = [name for name in HETEROGENEOUS if name != "lookup"]  # those with a drafter model
CASES = [*((name, "heterogeneous") for name in DRAFTING), ("sd", "same")]
PATIENCE = 60  # seconds until a test gives up on a thread


@dataclass
class Beat:
    """What the timing makes of one iteration.

    ``waited``: steps of a draft for which the target waits, 0 if it does not. ``beside``: steps beside its pass, 0 if
    there is no time for one.
    """

    waited: int
    beside: int


@dataclass
class Score:
    """A rhythm that is played as it is written, from the beginning again after the end."""

    beats: Sequence[Beat]
    clock: PhaseClock = field(default_factory=PhaseClock)
    on_begin: Callable[[int], None] = lambda width: None
    on_interrupt: Callable[[], None] = lambda: None
    played: int = -1
    left: int = 0
    beside: bool = False

    @property
    def beat(self) -> Beat:
        return self.beats[self.played % len(self.beats)]

    def waits(self) -> bool:
        return self.beat.waited > 0

    def keeps_up(self, width: int) -> bool:
        return self.beat.beside > 0

    def begin(self, width: int) -> None:
        self.beside = width > 0
        self.left = self.beat.beside if width else self.beat.waited
        self.on_begin(width)

    def interrupt(self) -> None:
        self.on_interrupt()

    def observe_pass(self, width: int, seconds: float) -> None:
        pass

    def settle(self, tokens: int, upheld: bool | None) -> None:
        self.played += 1

    def plan(self, most: int) -> int:
        return most

    def go_on(self, confidence: torch.Tensor) -> bool:
        self.left -= 1
        return self.left > 0

    def learn(self, confirmed: int) -> None:
        pass


def parallel_commits(
    pair: TinyPair,
    algorithm: str,
    rule: VerificationRule,
    settings: SamplingSettings,
    tokens: int,
    beats: Sequence[Beat],
    *,
    lookahead: int = 3,
    eos: bool = True,
    target: TableModel | Replicas | None = None,
) -> Iterator[Commit]:
    score = Score(beats)
    pair.patience = score
    target = target or pair.target()
    drafter = pair._drafter(algorithm, pair.target(), rule, settings, score.clock)
    return played(pair, drafter, score, rule, settings, tokens, lookahead, eos, target)


def played(
    pair: TinyPair,
    drafter: Drafter,
    score: Score,
    rule: VerificationRule,
    settings: SamplingSettings,
    tokens: int,
    lookahead: int,
    eos: bool,
    target: TableModel | Replicas,
) -> Iterator[Commit]:
    kind = Eager if isinstance(target, Replicas) else ParallelDrafter
    ahead = kind(drafter, score, (target.device, target.device), target.vocabulary_size)
    return ahead.during(
        decode(
            target,
            ahead,
            pair.prompt,
            Limits(tokens, lookahead, frozenset(pair.target_vocabulary.eos_ids if eos else ())),
            rule=rule,
            warper=Warper(settings, target.vocabulary_size, target.device),
            text=TextStream(pair.target_vocabulary),
            clock=PhaseClock(),
            statistics=Statistics(),
        ),
        target,
    )


# Rhythms of one, two and three beats, each with the length of the texts whose law is enumerated.
RHYTHMS = {
    "as it comes": ([Beat(1, 1)], 4),
    "the target never waits": ([Beat(0, 2)], 3),
    "a slow drafter": ([Beat(1, 0), Beat(0, 1)], 4),
    "a fast drafter": ([Beat(1, 2)], 3),
    "a hiccup": ([Beat(0, 2), Beat(0, 0), Beat(1, 1)], 3),
}


@pytest.mark.parametrize(("beats", "length"), RHYTHMS.values(), ids=RHYTHMS)
@pytest.mark.parametrize(("algorithm", "vocabularies"), CASES)
def test_whole_texts_have_exactly_the_targets_law(
    algorithm: str, vocabularies: str, beats: Sequence[Beat], length: int
) -> None:
    pair, settings = tiny_pair(vocabularies), SamplingSettings(1.0, top_k=2)

    def text(randomness: EnumeratedRandomness) -> tuple[int, ...]:
        rule = Rejection(randomness)  # type: ignore[arg-type]
        return tuple(token_ids(parallel_commits(pair, algorithm, rule, settings, length, beats)))

    assert largest_difference(law(text), exact_law(pair, settings, length)) < 1e-6  # type: ignore[arg-type]


class Eager(ParallelDrafter):
    """Everything that can be drafted and begun beside a pass is, before that pass is over."""

    def check(self, target: LanguageModel, fed: torch.Tensor, draft: Draft) -> torch.Tensor:
        assert isinstance(target, Replicas)
        self._go_on(draft)
        target.start(fed.tolist())
        for _ in range(len(target)):
            wait([*target.under_way, *([] if self._work is None else [self._work])])
            self._begin_passes(target)
        return target.run(fed)


def copies(pair: TinyPair, count: int) -> Replicas:
    return Replicas([pair.target() for _ in range(count)])


@pytest.mark.parametrize(("algorithm", "vocabularies"), [("tli", "heterogeneous"), ("sd", "same")])
def test_texts_that_two_targets_check_have_exactly_the_targets_law(algorithm: str, vocabularies: str) -> None:
    pair, settings = tiny_pair(vocabularies), SamplingSettings(1.0, top_k=2)

    def text(randomness: EnumeratedRandomness) -> tuple[int, ...]:
        rule = Rejection(randomness)  # type: ignore[arg-type]
        target = copies(pair, 2)
        return tuple(token_ids(parallel_commits(pair, algorithm, rule, settings, 3, [Beat(1, 1)], target=target)))

    assert largest_difference(law(text), exact_law(pair, settings, 3)) < 1e-6  # type: ignore[arg-type]


class BelievesTheGuess(Rejection):
    """A wrong verifier: the guess at the target's own token is not checked."""

    def verify(self, logits: torch.Tensor, draft: Draft, position: int) -> Verdict:
        accepted, tokens, sound = super().verify(logits, draft, position)
        if accepted + 1 == len(draft) == len(logits):
            tokens = draft.tokens.tolist()
        return Verdict(accepted, tokens, sound)


@pytest.mark.parametrize("wrong", [ForgetsTheResidual, BelievesTheGuess])
def test_these_tests_catch_wrong_verifiers(wrong: type[Rejection]) -> None:
    pair, settings = tiny_pair("heterogeneous"), SamplingSettings(1.0, top_k=2)

    def text(randomness: EnumeratedRandomness) -> tuple[int, ...]:
        rule = wrong(randomness)  # type: ignore[arg-type]
        return tuple(token_ids(parallel_commits(pair, "tli", rule, settings, 2, [Beat(1, 1)])))

    assert largest_difference(law(text), exact_law(pair, settings, 2)) > 1e-3  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["temperature 0.7, top-p 0.9", "repetition penalty"])
@pytest.mark.parametrize("algorithm", breadth(DRAFTING, quick=["tli"]))
def test_long_samples_follow_the_targets_law(algorithm: str, name: str) -> None:
    pair, settings = tiny_pair("heterogeneous", order=1), SETTINGS[name]
    rule = Rejection(Randomness(torch.Generator().manual_seed(11)))
    beats = RHYTHMS["a hiccup"][0]
    ids = token_ids(parallel_commits(pair, algorithm, rule, settings, 1500, beats, eos=False))
    assert len(ids) == 1500
    assert fit(pair, ids, settings).p_value > 1e-3


BEATS = st.lists(st.builds(Beat, st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=5)
TOKENS = st.lists(st.text("ab ", min_size=1, max_size=3), min_size=1, max_size=6, unique=True)


@settings(max_examples=60, deadline=None)
@given(
    target=TOKENS,
    drafter=TOKENS,
    algorithm=st.sampled_from(DRAFTING),
    beats=BEATS,
    lookahead=st.integers(1, 4),
    seed=st.integers(0, 5),
    chosen=st.sampled_from([None, *SETTINGS.values()]),
    targets=st.integers(1, 4),
)
def test_a_coupled_or_greedy_text_is_plain_decodings_whatever_the_timing(
    target: list[str],
    drafter: list[str],
    algorithm: str,
    beats: list[Beat],
    lookahead: int,
    seed: int,
    chosen: SamplingSettings | None,
    targets: int,
) -> None:
    pair = TinyPair(vocabulary([*target, "a", "b", END]), vocabulary([*drafter, "a", END]), seed=seed)
    rule, sampling = (Coupled(None), SamplingSettings()) if chosen is None else (Coupled(seed), chosen)
    plain = token_ids(pair.commits("ar", rule, sampling, 24))
    target = pair.target() if targets == 1 else copies(pair, targets)
    commits = parallel_commits(pair, algorithm, rule, sampling, 24, beats, lookahead=lookahead, target=target)
    assert token_ids(commits) == plain


class Wrong(Replicas):
    """Takes all that a copy has read for the text."""

    def rollback(self, length: int) -> None:
        super().rollback(length)
        wait(self.under_way)
        for copy in self._copies:
            copy.agreed = copy.model.length


@pytest.mark.parametrize(("kind", "right"), [(Replicas, True), (Wrong, False)])
def test_what_a_copy_read_of_a_refused_draft_is_taken_back(kind: type[Replicas], right: bool) -> None:
    model = TableModel(5, seed=1, order=6)
    target = kind([TableModel(5, seed=1, order=6) for _ in range(2)])
    target.begin([1, 2, 3])
    target.prefill([1, 2])
    target.run(torch.tensor([3, 1, 1, 1]))
    target.rollback(4)  # the last two were refused
    assert target.ahead([1, 2, 3, 1, 2, 2, 3], 1)
    target.run(torch.tensor([2, 2]))
    logits = target.run(torch.tensor([3]))
    assert logits[0].equal(model.logits_after([1, 2, 3, 1, 2, 2, 3])) == right
    target.close()


def test_what_a_copy_read_of_a_text_that_is_taken_back_is_read_anew() -> None:
    model = TableModel(5, seed=1, order=6)
    target = Replicas([TableModel(5, seed=1, order=6) for _ in range(2)])
    target.begin([1, 2, 3, 1, 1])
    target.prefill([1, 2, 3, 1])
    target.rollback(1)
    assert target.ahead([1, 3, 2, 1], 1)
    target.run(torch.tensor([3, 2]))
    assert target.run(torch.tensor([1]))[0].equal(model.logits_after([1, 3, 2, 1]))
    target.close()


SOME = st.lists(st.integers(1, 3), min_size=1, max_size=4)
CHARACTERS = ["a", "b", " ", "<0xE3>", "<0x81>", "<0x82>", "ab a"]
COMMITS = st.tuples(st.lists(st.integers(1, len(CHARACTERS)), max_size=6), st.lists(st.integers(1, 3), max_size=4))


@settings(deadline=None)
@given(
    names=st.lists(st.text("ab \N{HIRAGANA LETTER A}", min_size=1, max_size=4), min_size=2, max_size=6, unique=True),
    steps=st.lists(st.tuples(COMMITS, st.lists(COMMITS, min_size=1, max_size=3)), max_size=6),
)
def test_the_drafters_view_of_guesses_is_taken_back(names: list[str], steps: list[Any]) -> None:
    drafter, target = vocabulary(["a\n", *names]), vocabulary(CHARACTERS)
    sure, guessing = (TranslatedContext(drafter, target, [1]) for _ in range(2))
    for committed, guesses in steps:
        assert guessing.commit(*committed) == sure.commit(*committed)
        for guess in guesses:
            guessing.commit(*guess)
        for _ in guesses:
            guessing.undo()
        assert guessing.ids == sure.ids


@settings(deadline=None)
@given(
    algorithm=st.sampled_from(["sd", "slem", "slrs", "tli", "union"]),
    steps=st.lists(st.tuples(SOME, st.lists(SOME, min_size=1, max_size=3)), min_size=1, max_size=5),
)
def test_after_wrong_guesses_it_drafts_as_if_it_had_never_guessed(algorithm: str, steps: list[Any]) -> None:
    pair, sampling = tiny_pair("same" if algorithm == "sd" else "heterogeneous"), SETTINGS["repetition penalty"]
    pair.patience = Score([Beat(0, 3)], left=99)
    sure, guessing = (pair._drafter(algorithm, pair.target(), Coupled(3), sampling, PhaseClock()) for _ in range(2))
    text = pair.prompt
    for new, guesses in steps:
        text = [*text, *new]
        drafts = sure.draft(text, 3), guessing.draft(text, 3)
        assert drafts[0].tokens.tolist() == drafts[1].tokens.tolist()
        if drafts[0].psi is not None and drafts[1].psi is not None:
            assert drafts[0].psi.equal(drafts[1].psi)
        guessed = [*text, 3]
        for guess in guesses:  # each behind the one before
            guessed = [*guessed, *guess]
            guessing.draft(guessed, 2)
        text = [*text, 2]


class Listed:
    """A drafter that proposes what comes next in a list, and notes the texts that it is given."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = ids
        self.texts: list[list[int]] = []

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        self.texts.append(list(text))
        return Draft(torch.tensor(self._ids[len(text) : len(text) + lookahead], dtype=torch.int64), algorithm="list")


def test_it_goes_on_behind_every_draft_and_begins_anew_after_a_refusal() -> None:
    pair, greedy = tiny_pair("same"), SamplingSettings()
    text = [*pair.prompt, *token_ids(pair.commits("ar", Coupled(None), greedy, 14, eos=False))]
    start = len(pair.prompt)
    wrong = list(text)
    wrong[start + 5] = 1 + wrong[start + 5] % 3  # the second draft's second token
    drafter, score = Listed(wrong), Score([Beat(1, 1)])
    commits = list(played(pair, drafter, score, Coupled(None), greedy, 14, 3, False, pair.target()))
    assert token_ids(iter(commits)) == text[start:]
    assert [(commit.drafted, commit.accepted) for commit in commits] == [(3, 3), (3, 1), (3, 3), (3, 3)]
    guessed = [wrong[: start + length] for length in (0, 3, 7)]
    assert drafter.texts[:6] == [*guessed, *(text[: start + length] for length in (6, 9, 13))]


class Instrument(TableModel):
    """A model that calls ``before_pass`` and ``after_pass`` as it reads."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size, seed)
        self.before_pass = self.after_pass = lambda: None

    def prefill(self, ids: Sequence[int]) -> torch.Tensor:
        self.before_pass()
        logits = super().prefill(ids)
        self.after_pass()
        return logits

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        self.before_pass()
        logits = torch.cat([super(Instrument, self).prefill([token]) for token in ids.tolist()])
        self.after_pass()
        return logits


@dataclass
class Duo:
    """A target and a drafter for `tli` that play together, and the score that they play."""

    score: Score
    pair: TinyPair = field(default_factory=lambda: tiny_pair("heterogeneous"))

    def __post_init__(self) -> None:
        self.target = Instrument(len(self.pair.target_vocabulary), self.pair.seed)
        self.target.read = self.pair.prompt[:-1]  # all passes are over drafts
        self.drafter = Instrument(len(self.pair.drafter_vocabulary), self.pair.seed + 1)

    def commits(self, rules: tuple[VerificationRule, VerificationRule], tokens: int) -> Iterator[Commit]:
        settings = SETTINGS["temperature 1"]
        parts = Pair(
            Side(self.target, self.pair.target_vocabulary, self.pair.prompt),
            Side(self.drafter, self.pair.drafter_vocabulary, [1]),
            Warper(settings, self.drafter.vocabulary_size, self.drafter.device),
            rules[1],
            self.score.clock,
            self.score,
        )
        drafter = ALGORITHMS["tli"](parts)
        return played(self.pair, drafter, self.score, rules[0], settings, tokens, 3, False, self.target)


def rejections() -> tuple[VerificationRule, VerificationRule]:
    """The target's and the drafter's, with random numbers of their own."""
    first, second = (Rejection(Randomness(torch.Generator().manual_seed(seed))) for seed in (1, 2))
    return first, second


def wait_for(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


def test_the_text_is_the_same_whichever_thread_is_first() -> None:
    """Under `rejection`, too, where drafts are of the same length."""
    beats = [Beat(1, 2), Beat(0, 2)]

    early = Duo(Score(beats))  # all steps are over before the pass is
    stepped, passes = threading.Event(), itertools.count()
    early.drafter.after_pass = lambda: stepped.set() if early.score.beside and early.score.left == 1 else None
    early.target.before_pass = lambda: wait_for(stepped) if next(passes) < 6 else None
    early.target.after_pass = stepped.clear

    late = Duo(Score(beats))  # none begins before the pass is over
    over = threading.Event()
    late.score.on_begin = lambda width: over.clear() if width else None
    late.target.after_pass = over.set
    late.drafter.before_pass = lambda: wait_for(over) if late.score.beside else None

    texts = [token_ids(duo.commits(rejections(), 30)) for duo in (early, late)]
    assert texts[0] == texts[1]
    assert next(passes) > 6


@pytest.mark.parametrize("steps", [1, 4])
def test_the_end_of_a_pass_ends_the_draft_after_the_step_at_hand(steps: int) -> None:
    duo = Duo(Score([Beat(0, 99)]))
    read: list[int] = []
    over, enough = threading.Event(), threading.Event()

    def before_step() -> None:
        read.append(len(duo.drafter.read))
        if len(read) == steps:
            enough.set()
            wait_for(over)

    duo.drafter.before_pass = before_step
    duo.target.before_pass = lambda: wait_for(enough)
    duo.score.on_interrupt = lambda: (setattr(duo.score, "left", 0), over.set())  # type: ignore[func-returns-value]
    commits = duo.commits(rejections(), 30)
    first = next(commits)
    assert (first.drafted, len(first.pieces)) == (0, 1)
    assert len(read) == steps
    commits.close()


def drafters_at_work() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("drafter")]


def test_an_interrupt_stops_both_threads() -> None:
    duo = Duo(Score([Beat(0, 99)]))
    at_work, over = threading.Event(), threading.Event()

    def interrupted() -> None:
        wait_for(at_work)
        assert drafters_at_work()
        raise KeyboardInterrupt

    duo.drafter.before_pass = lambda: (at_work.set(), wait_for(over))  # type: ignore[func-returns-value]
    duo.score.on_interrupt = lambda: (setattr(duo.score, "left", 0), over.set())  # type: ignore[func-returns-value]
    duo.target.before_pass = interrupted
    with pytest.raises(KeyboardInterrupt):
        list(duo.commits(rejections(), 30))
    assert over.is_set()
    assert not drafters_at_work()


def test_a_text_that_is_given_up_stops_its_drafter() -> None:
    commits = Duo(Score([Beat(1, 2)])).commits(rejections(), 30)
    next(commits)
    assert drafters_at_work()
    commits.close()  # type: ignore[attr-defined]
    assert not drafters_at_work()


def test_the_two_share_the_cores_until_the_text_ends() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        duo, threads = Duo(Score([Beat(1, 2)])), set()
        duo.target.before_pass = lambda: threads.add(("target", torch.get_num_threads()))
        duo.drafter.before_pass = lambda: threads.add(("drafter", torch.get_num_threads()))
        list(duo.commits(rejections(), 10))
        assert threads == {("target", 6), ("drafter", 2)}
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(before)


def test_nothing_is_drafted_for_a_text_of_one_token() -> None:
    drafter = Listed([1] * 9)
    pair = tiny_pair("same")
    token_ids(played(pair, drafter, Score([Beat(1, 1)]), Coupled(None), SamplingSettings(), 1, 3, False, pair.target()))
    assert drafter.texts == []
