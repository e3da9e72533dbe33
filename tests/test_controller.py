"""`auto`: near the best algorithm where drafting pays, near plain decoding where it does not, and the same text."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from hsd_cli.decoding.loop import Limits, decode
from hsd_cli.decoding.sampling import Warper
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.decoding.statistics import Statistics
from hsd_cli.decoding.text import TextStream
from hsd_cli.decoding.verification import Coupled, Randomness, Rejection, VerificationRule
from hsd_cli.drafting.ar import NoDrafter
from hsd_cli.drafting.lookup import LookupDrafter
from hsd_cli.drafting.protocol import Draft, Drafter
from hsd_cli.drafting.registry import ALGORITHMS, Pair, Side
from hsd_cli.planner.arms import CopyArm, ModelArm
from hsd_cli.planner.controller import Controller
from hsd_cli.planner.costs import Costs
from hsd_cli.planner.experience import Experience
from hsd_cli.planner.pace import Calibration, Pace
from hsd_cli.runtime.clock import PhaseClock
from tests.breadth import breadth
from tests.tiny import TableModel, vocabulary

VOCABULARY = vocabulary([chr(ord("a") + index) for index in range(24)])
TOKENS = 512
LONGEST = 16


class Time:
    """Simulated seconds: models take what they are said to cost, everything else takes nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._chance: random.Random | None = None
        monkeypatch.setattr("hsd_cli.runtime.clock.perf_counter", lambda: self.now)

    def disturb(self, seed: int) -> None:
        """From now on everything takes up to three times as long as it should, or no time at all."""
        self._chance = random.Random(seed)

    def spend(self, seconds: float) -> None:
        self.now += seconds * (1.0 if self._chance is None else 3 * self._chance.random())


class TimedModel(TableModel):
    """A table model whose passes cost ``first + more * (tokens - 1)``; ``noise`` makes it disagree with its seed."""

    def __init__(self, time: Time, first: float, more: float, seed: int, noise: float = 0.0) -> None:
        super().__init__(len(VOCABULARY), seed, order=2, spread=3.0)
        self._time, self._first, self._more, self._noise = time, first, more, noise

    def logits_after(self, ids: Sequence[int]) -> torch.Tensor:
        other = torch.randn(len(VOCABULARY), generator=torch.Generator().manual_seed(hash(tuple(ids[-2:])) % 9973))
        return super().logits_after(ids) + self._noise * other

    def prefill(self, ids: Sequence[int]) -> torch.Tensor:
        self._time.spend(self._first + self._more * (len(ids) - 1))
        return super().prefill(ids)

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        self._time.spend(self._first + self._more * (len(ids) - 1))
        return torch.stack([self._read(token) for token in ids.tolist()])

    def _read(self, token: int) -> torch.Tensor:
        self.read.append(token)
        return self.logits_after(self.read)


@dataclass
class Case:
    """A drafter's quality (0 is perfect), its cost in target passes, and what one more token costs to check."""

    noise: float
    step: float
    more: float = 0.1
    seed: int = 1
    temperature: float = 1.0
    prompt: str = "ab"


CASES = {
    "a perfect drafter": Case(0.0, 0.1),
    "a good drafter": Case(1.5, 0.1),
    "a fair drafter": Case(3.0, 0.15),
    "a poor drafter": Case(6.0, 0.2),
    "a hostile drafter": Case(60.0, 0.2),
    "a dear drafter": Case(1.5, 0.7),
    "dear verification": Case(1.5, 0.1, more=0.6),
    "greedy": Case(1.5, 0.1, temperature=0.0),
    "greedy, hostile": Case(60.0, 0.2, temperature=0.0),
    "an unlucky seed": Case(60.0, 0.3, seed=7),
}


@dataclass
class Run:
    """What came of ``TOKENS`` tokens: simulated seconds without prefill, the text, iterations by algorithm."""

    seconds: float
    ids: list[int]
    iterations: Counter[str]
    verdict: str | None


def _makers(case: Case) -> tuple[str, str]:
    return ("slrs" if case.temperature else "slem"), "tli"


def run(case: Case, time: Time, algorithm: str, lookahead: int, seed: int = 3, *, coupled: bool = False) -> Run:
    clock, statistics = PhaseClock(), Statistics()
    settings = SamplingSettings(temperature=case.temperature)
    rule: VerificationRule = Rejection(Randomness(torch.Generator().manual_seed(seed)))
    if coupled or case.temperature == 0:
        rule = Coupled(seed if case.temperature else None)
    target = TimedModel(time, 1.0, case.more, case.seed)
    drafter = TimedModel(time, case.step, 0.0, case.seed, case.noise)
    prompt = VOCABULARY.encode(case.prompt.encode())
    costs = Costs(case.step)
    pace = Pace(costs)
    pair = Pair(
        Side(target, VOCABULARY, prompt),
        Side(drafter, VOCABULARY, prompt),
        Warper(settings, len(VOCABULARY), target.device),
        rule,
        clock,
        pace if algorithm == "auto" else None,
    )
    plain, lookup = NoDrafter(target.device), LookupDrafter(target.device)
    chosen: Drafter
    if algorithm == "auto":
        makers = {name: lambda name=name: ALGORITHMS[name](pair) for name in _makers(case)}
        chosen = Controller(makers, lookup, plain, pace, Experience(costs), clock)
    else:
        chosen = ALGORITHMS[algorithm](pair)
    commits = decode(
        target,
        chosen,
        prompt,
        Limits(TOKENS, lookahead),
        rule=rule,
        warper=Warper(settings, len(VOCABULARY), target.device),
        text=TextStream(VOCABULARY),
        clock=clock,
        statistics=statistics,
    )
    ids = [piece.token for commit in commits for piece in commit.pieces]
    seconds = sum(clock.seconds.values()) - clock.seconds["prefill"]
    verdict = chosen.verdict() if isinstance(chosen, Controller) else None
    return Run(seconds, ids, statistics.iterations_by, verdict)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def mean_seconds(case: Case, time: Time, algorithm: str, lookahead: int) -> float:
    """Over a few seeds: which tokens are accepted is chance."""
    seeds = range(3, 6)
    return sum(run(case, time, algorithm, lookahead, seed).seconds for seed in seeds) / len(seeds)


@pytest.mark.parametrize("name", ["a hostile drafter", "a dear drafter", "dear verification", "an unlucky seed"])
def test_where_drafting_does_not_pay_it_costs_next_to_nothing(name: str, time: Time) -> None:
    assert 0.97 * mean_seconds(CASES[name], time, "auto", LONGEST) <= TOKENS  # plain decoding: a second per token


@pytest.mark.parametrize("name", breadth(["a good drafter", "a fair drafter", "greedy"], quick=["a good drafter"]))
def test_where_drafting_pays_auto_is_close_to_the_best_algorithm_and_lookahead(name: str, time: Time) -> None:
    case = CASES[name]
    best = min(mean_seconds(case, time, maker, lookahead) for maker in _makers(case) for lookahead in (1, 2, 4, 8))
    assert best < 0.9 * TOKENS
    assert best >= 0.95 * mean_seconds(case, time, "auto", LONGEST)


def test_with_a_seed_the_text_does_not_depend_on_what_the_controller_chooses(time: Time) -> None:
    case = CASES["a fair drafter"]
    text = run(case, time, "ar", 0, coupled=True).ids
    chosen = []
    for disturbance in range(4):
        time.disturb(disturbance)
        again = run(case, time, "auto", LONGEST, coupled=True)
        assert again.ids == text
        chosen.append(again.iterations)
    assert {"ar", "lookup", "slrs", "tli"} == set().union(*chosen)
    assert len({tuple(sorted(counts.items())) for counts in chosen}) > 1  # the clock did change the choices


def test_where_a_model_does_not_pay_a_verdict_says_so(time: Time) -> None:
    hostile = run(CASES["a hostile drafter"], time, "auto", LONGEST)
    says = r"drafting with this drafter did not pay here: (slrs|tli) ran at 0\.\d\d of plain decoding's speed"
    assert re.fullmatch(says, hostile.verdict or "")
    assert run(CASES["a good drafter"], time, "auto", LONGEST).verdict is None


class Scripted:
    """A drafter that proposes what will be, or nothing; it notes when it was asked."""

    def __init__(self, time: Time, text: Sequence[int], speaks: bool) -> None:
        self.asked: list[int] = []
        self._time, self._text, self._speaks = time, text, speaks

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        self.asked.append(len(text))
        self._time.spend(0.1)
        following = self._text[len(text) :][:lookahead] if self._speaks else []
        return Draft(torch.tensor(following, dtype=torch.int64), algorithm="slem")


def test_a_drafter_with_nothing_to_say_is_soon_left_alone_and_asked_again_later(time: Time) -> None:
    clock, costs = PhaseClock(), Costs(0.1)
    silent = Scripted(time, [], speaks=False)
    controller = Controller(
        {"slem": lambda: silent}, None, NoDrafter(torch.device("cpu")), Pace(costs), Experience(costs), clock
    )
    text = [1]
    for _ in range(300):
        with clock.phase("draft"):
            assert len(controller.draft(text, LONGEST)) == 0
        with clock.phase("verify"):
            time.spend(1.0)
        text.append(1)
    assert 0.1 * len(silent.asked) < 0.02 * 300  # seconds in vain, and in all
    assert silent.asked[-1] > 150


class NowAndThen:
    """A lookup with a long match at every tenth token, and nothing else."""

    def match(self, text: Sequence[int]) -> int:
        return 0 if len(text) % 10 else 12

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        return Draft(torch.ones(1, dtype=torch.int64), algorithm="lookup")


def test_copies_now_and_then_do_not_keep_a_drafter_from_being_asked_again(time: Time) -> None:
    clock, costs = PhaseClock(), Costs(0.1)
    silent, plain = Scripted(time, [], speaks=False), NoDrafter(torch.device("cpu"))
    controller = Controller({"slem": lambda: silent}, NowAndThen(), plain, Pace(costs), Experience(costs), clock)
    text = [1]
    for _ in range(300):
        with clock.phase("draft"):
            copied = len(controller.draft(text, LONGEST))
        with clock.phase("verify"):
            time.spend(1.0)
        text += [1] * (1 + copied)
    assert silent.asked[-1] > 150


@pytest.mark.parametrize("texts", [1, 4])
def test_what_a_first_draft_takes_counts_where_other_texts_wait_for_it(time: Time, texts: int) -> None:
    clock, costs = PhaseClock(), Costs(0.01)
    drafter, plain = Scripted(time, [1] * 99, speaks=True), NoDrafter(torch.device("cpu"))
    controller = Controller({"slem": lambda: drafter}, None, plain, Pace(costs), Experience(costs, texts), clock)
    text = [1]
    while len(drafter.asked) < 1 or text[-1] != 2:
        text.append(2 if drafter.asked else 1)
        with clock.phase("draft"):
            controller.draft(text, 1)
        with clock.phase("verify"):
            time.spend(1.0)
    assert costs.step("slem") == pytest.approx(0.1 if texts > 1 else 0.01)


def test_a_narrow_lead_over_a_cold_start_is_proved_again(time: Time) -> None:
    clock, costs = PhaseClock(), Costs(0.1)
    text = [1]
    drafter = Scripted(time, [1] * 2000, speaks=True)
    controller = Controller(
        {"slem": lambda: drafter},
        None,
        NoDrafter(torch.device("cpu")),
        Pace(costs),
        Experience(costs),
        clock,
        fixed_length=True,
    )
    for iteration in range(400):
        with clock.phase("draft"):
            drafted = len(controller.draft(text, 1))
        with clock.phase("verify"):  # two tokens in 2.1 seconds are fewer than plain decoding's, but for its cold start
            time.spend(2.0 if drafted else 1.2 if iteration < 2 else 1.0)
        text += [1] * (1 + drafted)
    assert sum(place > len(text) - 200 for place in drafter.asked) < 50


# --- what things cost ---


def test_costs_are_typical_values_of_what_was_seen() -> None:
    costs = Costs(0.25)
    assert (costs.verification(1), costs.step("tli")) == (1.0, 0.25)  # any unit will do
    for seconds in (2.0, 2.0, 50.0):  # a hiccup
        costs.observe_pass(1, seconds)
    assert costs.verification(1) == 2.0
    assert costs.step("tli") == 0.5
    costs.observe_draft("tli", steps=4, seconds=2.8)
    assert costs.step("tli") == pytest.approx(0.7)
    assert costs.step("slrs") == 0.5


def test_the_cost_of_an_unseen_length_lies_on_the_line_through_those_seen() -> None:
    costs = Costs(0.25)
    for tokens, seconds in ((1, 1.0), (3, 2.0), (3, 2.0), (5, 3.0), (5, 3.0)):
        costs.observe_pass(tokens, seconds)
    assert costs.marginal == 0.5
    assert costs.verification(4) == pytest.approx(2.5)
    assert costs.verification(9) == pytest.approx(5.0)
    assert costs.iteration("tli", drafted=2.5, steps=2.0) == pytest.approx(2.25 + 2 * 0.25)


# --- how far to draft ---


def draft_length(pace: Pace, confidence: float, longest: int = 16) -> int:
    pace.begin("tli", seconds_per_token=1.0)
    for length in range(1, longest + 1):
        if not pace.go_on(torch.tensor(confidence)):
            return length
    return longest


def pace_with(step: float) -> Pace:
    """Four of five tokens were accepted, so far."""
    costs = Costs(step)
    costs.observe_pass(1, 1.0)
    pace = Pace(costs)
    for _ in range(40):
        pace.begin("tli", 1.0)
        for _ in range(5):
            pace.go_on(torch.tensor(0.5))
        pace.begin("tli", 1.0)
        pace.learn(4)
    return pace


def test_a_draft_goes_on_while_one_more_token_is_worth_its_step_and_its_check() -> None:
    lengths = [draft_length(pace_with(step), 0.5) for step in (0.05, 0.2, 0.4, 0.8)]
    assert lengths == sorted(set(lengths), reverse=True)
    assert lengths[-1] == 1


def test_a_draft_that_is_planned_beforehand_is_as_long() -> None:
    for step in (0.05, 0.2, 0.4, 0.8):
        pace = pace_with(step)
        pace.begin("tli", 1.0)
        assert pace.plan(16) == draft_length(pace_with(step), 0.5)


def test_a_planned_draft_does_not_wait_for_its_probabilities_but_learns_from_them() -> None:
    pace = pace_with(0.2)
    pace.begin("tli", 1.0)
    planned = pace.plan(16)
    assert all(pace.go_on(torch.empty((), device="meta")) for _ in range(planned))  # there is no value to wait for
    for _ in range(40):  # from now on nothing is confirmed, and the last probability is not even a number
        pace.begin("tli", 1.0)
        pace.plan(16)
        for sure in (0.5, float("nan")):
            pace.go_on(torch.tensor(sure))
        pace.begin("tli", 1.0)
        pace.learn(0)
    assert pace.plan(16) < planned


def test_confidence_counts_as_far_as_the_text_confirmed_it() -> None:
    informed, misled = Calibration(), Calibration()
    for _ in range(50):
        informed.learn([0.95, 0.15], 1)
        misled.learn([0.95], 0)
        misled.learn([0.15], 1)
    assert informed.expected(0.95) > 0.8 > 0.3 > informed.expected(0.15)
    assert misled.expected(0.15) > 0.8 > 0.3 > misled.expected(0.95)


def test_a_fixed_length_is_kept_whatever_it_costs() -> None:
    costs = Costs(5.0)
    costs.observe_pass(1, 1.0)
    assert draft_length(Pace(costs, fixed_length=True), 0.01) == 16
    assert Pace(costs, fixed_length=True).plan(9) == 9


# --- the arms ---


def test_hope_fades_as_an_arm_is_tried() -> None:
    arm = ModelArm(tokens=2.0, drafted=2.0)
    hopes = []
    for _ in range(40):
        arm.learn(tokens=2, drafted=2, steps=2)
        hopes.append(arm.hopeful_tokens - arm.tokens)
    assert hopes == sorted(hopes, reverse=True)
    assert hopes[-1] < 0.03
    arm.forget()
    assert arm.hopeful_tokens - arm.tokens > hopes[-1]


def test_copies_grow_with_success_and_shrink_with_failure() -> None:
    arm = CopyArm(0.8)
    first = arm.limit
    arm.learn(first, first)
    assert arm.limit == 2 * first
    arm.learn(2 * first, 0)
    assert arm.limit == first
    for _ in range(20):
        arm.learn(1, 0)
    assert arm.limit == 1
    assert arm.hopeful_tokens(1) < 1.25
