"""What drafting brings, from the acceptance and the costs: the formula of Leviathan et al. 2023 (arXiv 2211.17192).

With acceptance ``a`` of each drafted token, lookahead ``g``, a drafter that takes ``c`` per drafted token and a target
pass over ``k`` tokens that takes ``V(k)``, all times in units of a target pass over one token::

    tokens per iteration  1 + a + ... + a^g  =  (1 - a^(g+1)) / (1 - a)
    speed-up              (1 - a^(g+1)) / ((1 - a) (g c + V(g+1)))

The paper has ``V = 1``, which holds where reading the weights takes all the time. Where only a ``share`` of the
iterations drafts (a lookup that finds no match does not), the others bring one token in one unit of time::

    speed-up              (s E + 1 - s) / (s (g c + V(g+1)) + 1 - s),  E the tokens of an iteration that drafts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FORMULA = "(1 - a^(g+1)) / ((1 - a) (g c + V))"
LONGEST = 8  # tokens of lookahead that are considered
NEGLIGIBLE, LONG_RUN = 1e-6, 1e3  # a probability; target passes
PRECISION = 1e-6  # of the break-even acceptance


@dataclass(frozen=True)
class RelativeCosts:
    """Times in units of a target pass over one token: ``draft`` of one drafted token, ``passes[k - 1]`` over ``k``."""

    draft: float
    passes: Sequence[float]


@dataclass(frozen=True)
class Prediction:
    """The speed-up over plain decoding at the ``lookahead`` that is best for this ``acceptance``."""

    acceptance: float
    lookahead: int
    speed_up: float


def flat_costs(draft: float, several: float) -> RelativeCosts:
    """Costs where a target pass over any number of tokens above one takes ``several``."""
    return RelativeCosts(draft, [1.0] + [several] * LONGEST)


def tokens_per_iteration(acceptance: float, lookahead: int) -> float:
    """Expected tokens of one iteration, the target's own one included."""
    return sum(acceptance**place for place in range(lookahead + 1))


def speed_up(acceptance: float, lookahead: int, costs: RelativeCosts, share: float = 1.0) -> float:
    """Over plain decoding; below 1 drafting loses time."""
    tokens = share * tokens_per_iteration(acceptance, lookahead) + 1 - share
    return tokens / (share * (lookahead * costs.draft + costs.passes[lookahead]) + 1 - share)


def parallel_speed_up(acceptance: float, first: int, costs: RelativeCosts) -> float:
    """The same where the drafter goes on during the target's passes, as if all that it drafted were accepted.

    After each refusal the target waits for ``first`` tokens, which may be none. Then pass follows pass while all is
    accepted, each over what was drafted during the one before, less a first proposal: the guess at the target's own
    token.
    """
    reached, tokens, time, lookahead = 1.0, 0.0, first * costs.draft, first
    while reached > NEGLIGIBLE:
        taken = costs.passes[lookahead]
        tokens += reached * tokens_per_iteration(acceptance, lookahead)
        time += reached * taken
        reached *= acceptance ** (lookahead + 1)
        lookahead = min(int(taken / costs.draft), len(costs.passes)) - 1 if costs.draft else len(costs.passes) - 1
        if lookahead < 0 or time > LONG_RUN:  # no guess in time, or no end in sight
            break
    return tokens / time


def predict(acceptance: float, costs: RelativeCosts, share: float = 1.0) -> Prediction:
    """At the best lookahead, which is at least 1: what drafting brings, not what leaving it would."""
    rates = {lookahead: speed_up(acceptance, lookahead, costs, share) for lookahead in range(1, len(costs.passes))}
    best = max(rates, key=rates.__getitem__)
    return Prediction(acceptance, best, rates[best])


def break_even(costs: RelativeCosts) -> float | None:
    """The least acceptance at which some lookahead loses no time, by bisection; ``None`` if not even 1 is enough.

    Where ``V = 1`` it is ``c``, at lookahead 1.
    """
    if predict(1.0, costs).speed_up < 1:
        return None
    low, high = 0.0, 1.0
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if predict(middle, costs).speed_up >= 1 else (middle, high)
    return high
