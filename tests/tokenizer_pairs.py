"""Two families at work together: models that know the text, so that drafts are accepted, and one real decoding."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from hsd_cli.decoding.loop import Limits, decode
from hsd_cli.decoding.sampling import Warper
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.decoding.statistics import Statistics
from hsd_cli.decoding.text import TextStream
from hsd_cli.decoding.verification import VerificationRule
from hsd_cli.drafting.ar import NoDrafter
from hsd_cli.drafting.registry import ALGORITHMS, Pair, Side
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.vocab.vocabulary import Vocabulary
from tests.tiny import TableModel
from tests.tokenizer_families import vocabulary_of

CERTAIN = 9.0  # logit of what is known, among random ones
LONGEST_CUE = 16


class Reciter(TableModel):
    """Writes ``script`` token by token, most of the time, and anything at all after it."""

    def __init__(self, size: int, script: Sequence[int], seed: int = 1, certainty: float = CERTAIN) -> None:
        super().__init__(size, seed, order=1)
        self._script, self._certainty = script, certainty

    def logits_after(self, ids: Sequence[int]) -> torch.Tensor:
        logits = super().logits_after(ids)
        if len(ids) >= len(self._script):
            return logits
        logits = logits.clone()
        logits[self._script[len(ids)]] += self._certainty
        return logits


class Prompter(TableModel):
    """Knows ``script`` by its bytes: goes on with what follows the end of what it has read, in its own tokens."""

    def __init__(self, vocabulary: Vocabulary, script: bytes, seed: int = 2, certainty: float = CERTAIN) -> None:
        super().__init__(len(vocabulary), seed, order=1)
        self._vocabulary, self._script, self._certainty = vocabulary, script, certainty

    def logits_after(self, ids: Sequence[int]) -> torch.Tensor:
        logits = super().logits_after(ids)
        following = _first_token(self._vocabulary, self._upcoming(ids))
        if following is None:
            return logits
        logits = logits.clone()
        logits[following] += self._certainty
        return logits

    def _upcoming(self, ids: Sequence[int]) -> bytes:
        cue = self._vocabulary.text_bytes(ids[-LONGEST_CUE:])[-LONGEST_CUE:]
        while cue:
            place = self._script.find(cue)
            if place >= 0:
                place += len(cue)
                return self._script[place : place + LONGEST_CUE]
            cue = cue[1:]
        return b""


@lru_cache(maxsize=1 << 16)
def _first_token(vocabulary: Vocabulary, data: bytes) -> int | None:
    return next(iter(vocabulary.encode(data)), None)


def write(
    families: tuple[str, str],
    algorithm: str,
    script: Sequence[int],
    rule: VerificationRule,
    settings: SamplingSettings,
    *,
    prompt: int = 1,
    lookahead: int = 4,
    certainty: float = CERTAIN,
    more: int = 4,
) -> tuple[list[int], Statistics]:
    """What a target that recites ``script`` (its own ids, ``prompt`` of them given) writes, and ``more`` tokens.

    ``families``: the target's and the drafter's. Raises ``UsageError`` where the algorithm has nothing to draft.
    """
    target, drafter = map(vocabulary_of, families)
    model = Reciter(len(target), script, certainty=certainty)
    clock, statistics = PhaseClock(), Statistics()
    given = list(script[:prompt])
    if algorithm == "ar":
        drafting = NoDrafter(model.device)
    else:
        text = target.text_bytes(script)
        own = Prompter(drafter, drafter.text_bytes(drafter.encode(text)), certainty=certainty)
        begun = drafter.encode(target.text_bytes(given)) or [0]
        warp = Warper(settings, own.vocabulary_size, own.device)
        sides = Side(model, target, given), Side(own, drafter, begun)
        drafting = ALGORITHMS[algorithm](Pair(*sides, warp, rule, clock))
    commits = decode(
        model,
        drafting,
        given,
        Limits(len(script) - prompt + more, lookahead),
        rule=rule,
        warper=Warper(settings, model.vocabulary_size, model.device),
        text=TextStream(target),
        clock=clock,
        statistics=statistics,
    )
    return [piece.token for commit in commits for piece in commit.pieces], statistics
