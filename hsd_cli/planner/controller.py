"""`auto`: runs whatever brings most tokens per second here, and plain decoding where no draft pays.

Every iteration is lossless whichever algorithm drafts it, so the choice is free at each one. It is a bandit: the arms
are the algorithms, the reward is measured in this very run, and the safe arm is plain decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hsd_cli.decoding.loop import PLAIN
from hsd_cli.drafting.lookup import LookupDrafter
from hsd_cli.drafting.protocol import Draft, Drafter
from hsd_cli.planner.arms import ModelArm
from hsd_cli.planner.experience import FIRST_PAUSE, FIRST_PLAIN, MATCHES, Experience
from hsd_cli.planner.pace import Pace
from hsd_cli.planner.speedup import tokens_per_iteration
from hsd_cli.runtime.clock import PhaseClock

LOOKUP = "lookup"
LONGEST_PAUSE = 384  # iterations without the drafter until it is tried again
FIRST_LIMIT = 2  # tokens: an unknown drafter is not given much to waste, and 2 more each time
MEASURED_WEIGHT = 4.0  # iterations that an earlier run's measurement is worth: it was of other texts
NARROW = 1.15  # times plain decoding's rate: who leads by less has to prove it
PROOF_PAUSE = 48  # iterations until the next such proof
STEADY = 8  # tokens: having to read more than these makes a draft's time untypical


@dataclass(frozen=True)
class Iteration:
    """What was last drafted, to be judged when the text has grown. ``steady``: its seconds are typical ones."""

    name: str
    match: int
    drafted: int
    text_length: int
    seconds: dict[str, float]
    steady: bool


@dataclass(frozen=True)
class Choice:
    """An algorithm (with the match that the lookup found), the longest draft, and the rate to expect."""

    name: str
    rate: float
    limit: int = 0
    match: int = 0


class Controller:
    """A drafter that is, at each iteration, the one that pays best: of ``makers``, the lookup, or none at all.

    ``makers`` are called when first needed. Without the ``guard`` it drafts wherever it can, and only sets the pace;
    with ``fixed_length`` every draft is as long as it may be. ``acceptance``: of one drafted token by algorithm, where
    an earlier run measured it. ``too_dear``: what a step of a drafter costs that was left out for it, in target passes.
    """

    def __init__(
        self,
        makers: Mapping[str, Callable[[], Drafter]],
        lookup: LookupDrafter | None,
        plain: Drafter,
        pace: Pace,
        experience: Experience,
        clock: PhaseClock,
        *,
        guard: bool = True,
        fixed_length: bool = False,
        acceptance: Mapping[str, float] | None = None,
        too_dear: float | None = None,
    ) -> None:
        self._makers = makers
        self._lookup = lookup
        self._plain = plain
        self._pace = pace
        self._known = experience
        self._costs = experience.costs
        self._clock = clock
        self._guard = guard
        self._fixed_length = fixed_length
        self._acceptance = acceptance or {}
        self._drafters: dict[str, Drafter] = {}
        self._last: Iteration | None = None
        self._model_read = 0
        self._too_dear = too_dear

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        self._learn(text)
        choice = self._choose(text, lookahead)
        steady = self._is_steady(choice, len(text))
        seconds = dict(self._clock.seconds)
        draft = self._run(choice, text)
        self._last = Iteration(choice.name, choice.match, len(draft), len(text), seconds, steady)
        return draft

    def _is_steady(self, choice: Choice, text_length: int) -> bool:
        """Not where a drafter is new or has much to read, nor the target's plain pass right after a drafter's."""
        if choice.name in self._makers:
            return choice.name in self._drafters and text_length - self._model_read <= STEADY
        return choice.name == LOOKUP or self._last is None or self._last.name not in self._makers

    def verdict(self) -> str | None:
        """In words, that the drafter does not pay here, if so."""
        if self._too_dear is not None:
            return f"the drafter was not used: a step of it costs {self._too_dear:.2f} target passes"
        speeds = {
            name: self._rate(name, arm, arm.tokens) * self._costs.verification(1)
            for name, arm in self._known.arms.items()
        }
        if not self._guard or not speeds or max(speeds.values()) >= 1:
            return None
        best = max(speeds, key=speeds.__getitem__)
        return (
            f"drafting with this drafter did not pay here: {best} ran at {speeds[best]:.2f} of plain decoding's speed"
        )

    def _run(self, choice: Choice, text: Sequence[int]) -> Draft:
        if choice.name == PLAIN:
            return self._plain.draft(text, 0)
        if choice.name == LOOKUP and self._lookup is not None:
            return self._lookup.draft(text, choice.limit)
        if choice.name not in self._drafters:
            self._drafters[choice.name] = self._makers[choice.name]()
        self._pace.begin(choice.name, 1 / max(choice.rate, 1 / self._costs.verification(1)))
        self._model_read = len(text)
        return self._drafters[choice.name].draft(text, choice.limit)

    # --- what to do next ---

    def _choose(self, text: Sequence[int], lookahead: int) -> Choice:
        plain = Choice(PLAIN, 1 / self._costs.verification(1))
        if lookahead == 0:
            return plain
        if self._guard and self._known.plain_ahead:
            self._known.plain_ahead -= 1
            return plain
        choices = [*self._model_choices(lookahead), *self._copy_choices(text, lookahead)]
        if self._guard or not choices:
            choices.append(plain)
        best = max(choices, key=lambda choice: choice.rate)
        for choice in choices:
            if choice.name == LOOKUP and choice is not best:
                self._known.copies[choice.match].neglect()
        if self._guard and self._has_to_prove(best, plain):
            self._known.plain_ahead = FIRST_PLAIN - 1
            return plain
        return self._perhaps_try_again(best, choices)

    def _has_to_prove(self, best: Choice, plain: Choice) -> bool:
        """Whether to measure plain decoding again, which a narrow lead rests on."""
        self._known.unproved = 0 if best is plain else self._known.unproved + 1 / self._known.texts
        if self._known.unproved < PROOF_PAUSE or best.rate > NARROW * plain.rate:
            return False
        self._known.unproved = 0
        return True

    def _model_choices(self, lookahead: int) -> list[Choice]:
        limit = FIRST_LIMIT + 2 * sum(arm.trials for arm in self._known.arms.values())
        length = lookahead if self._fixed_length else min(lookahead, limit)
        arms = {name: self._known.arms.get(name) or self._untried(name) for name in self._makers}
        return [Choice(name, self._rate(name, arm, arm.hopeful_tokens), length) for name, arm in arms.items()]

    def _rate(self, name: str, arm: ModelArm, tokens: float) -> float:
        """Tokens per second, for so many tokens per iteration."""
        return tokens / self._costs.iteration(name, arm.drafted, arm.steps)

    def _untried(self, name: str) -> ModelArm:
        """An untried algorithm is expected to do as it was measured, else as the others: they share the drafter."""
        if name in self._acceptance:
            return ModelArm(tokens_per_iteration(self._acceptance[name], FIRST_LIMIT), FIRST_LIMIT, MEASURED_WEIGHT)
        tokens = max((arm.tokens for arm in self._known.arms.values()), default=2.0)
        return ModelArm(min(tokens, FIRST_LIMIT + 1.0), FIRST_LIMIT)

    def _copy_choices(self, text: Sequence[int], lookahead: int) -> list[Choice]:
        found = 0 if self._lookup is None else self._lookup.match(text)
        match = next((least for least in MATCHES if found >= least), None)
        if match is None:
            return []
        arm = self._known.copies[match]
        lengths = [lookahead] if self._fixed_length else range(1, min(lookahead, arm.limit) + 1)
        rates = [(arm.hopeful_tokens(length) / self._costs.verification(length + 1), length) for length in lengths]
        rate, length = max(rates)
        return [Choice(LOOKUP, rate, length, match)]

    def _perhaps_try_again(self, best: Choice, choices: Sequence[Choice]) -> Choice:
        """``best``, or after a long time without the drafter the best of the beaten algorithms."""
        if best.name in self._makers:
            self._known.undrafted = 0
            self._known.pause = max(FIRST_PAUSE, self._known.pause // 2)
            return best
        self._known.undrafted += 1 / self._known.texts
        beaten = [choice for choice in choices if choice.name in self._known.arms or choice.name in self._acceptance]
        if best.name == LOOKUP or self._known.undrafted < self._known.pause or not beaten:
            return best
        self._known.undrafted = 0
        self._known.pause = min(2 * self._known.pause, LONGEST_PAUSE)
        again = max(beaten, key=lambda choice: choice.rate)
        if again.name in self._known.arms:
            self._known.arms[again.name].forget()
        return again

    # --- what came of it ---

    def _learn(self, text: Sequence[int]) -> None:
        """The clock tells what the last iteration took, the text what it brought."""
        last = self._last
        if last is None:
            return
        tokens = len(text) - last.text_length
        took = {phase: seconds - last.seconds.get(phase, 0.0) for phase, seconds in self._clock.seconds.items()}
        if last.steady or last.drafted:
            self._costs.observe_pass(last.drafted + 1, took["verify"])
        if last.name == LOOKUP:
            self._known.copies[last.match].learn(last.drafted, tokens - 1)
        elif last.name in self._makers:
            steps = max(1, self._pace.steps)  # a drafter that had nothing to say took its time, too
            # In company every text begins to draft anew, and the others wait for that: it counts.
            if last.steady or self._known.texts > 1:
                self._costs.observe_draft(last.name, steps, took["draft"] + took.get("translate", 0.0))
            self._known.arms.setdefault(last.name, self._untried(last.name)).learn(tokens, last.drafted, steps)
