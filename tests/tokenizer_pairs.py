"""Two families at work together: models that know the text, so that drafts are accepted, and one real decoding.

``python -m tests.tokenizer_pairs`` writes docs/tokenizers.md, the table of all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch

from hsd_cli.decoding.loop import Limits, decode
from hsd_cli.decoding.sampling import Warper
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.decoding.statistics import Statistics
from hsd_cli.decoding.text import TextStream
from hsd_cli.decoding.verification import Coupled, VerificationRule
from hsd_cli.drafting.ar import NoDrafter
from hsd_cli.drafting.registry import ALGORITHMS, Pair, Side
from hsd_cli.errors import UsageError
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.vocab.vocabulary import Vocabulary
from tests.tiny import TableModel
from tests.tokenizer_families import EVERY_FAMILY, vocabulary_of

PAGE = Path(__file__).parents[1] / "docs" / "tokenizers.md"
SAMPLE = b"the cat sat on the mat and the dog ran"
SHOWN = ("slem", "slrs", "tli")

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


def acceptance(target: str, drafter: str, algorithm: str) -> str:
    """Percent of the drafted target tokens that are accepted where both models would write the sample.

    A dash where there is nothing to draft. Raises ``AssertionError`` if the text is not plain decoding's.
    """
    script = vocabulary_of(target).encode(SAMPLE)
    rule, greedy = Coupled(None), SamplingSettings()
    plain, _ = write((target, drafter), "ar", script, rule, greedy, certainty=30, more=0)
    try:
        written, counted = write((target, drafter), algorithm, script, rule, greedy, certainty=30, more=0)
    except UsageError:
        return "–"
    assert written == plain, (target, drafter, algorithm)
    return f"{100 * counted.accepted // counted.drafted}" if counted.drafted else "–"


def row(algorithm: str, target: str) -> str:
    """A target's line in the table of an algorithm."""
    number = 1 + list(EVERY_FAMILY).index(target)
    return (
        " | ".join([f"| {number} {target}", *(acceptance(target, drafter, algorithm) for drafter in EVERY_FAMILY)])
        + " |"
    )


def page() -> str:
    """docs/tokenizers.md."""
    count = len(EVERY_FAMILY)
    head = "| target | " + " | ".join(map(str, range(1, 1 + count))) + " |\n|---" + "|--:" * count + "|"
    tables = ["\n".join([f"## {name}", "", head, *(row(name, target) for target in EVERY_FAMILY)]) for name in SHOWN]
    return INTRODUCTION.format(count=count, pairs=count**2) + "\n\n".join(tables) + "\n"


INTRODUCTION = """\
# Any tokenizer with any other

This page is written by `python -m tests.tokenizer_pairs`, from small tokenizers of {count} families: {pairs} pairs of a
target (rows) and a drafter (columns, by the rows' numbers). **The text is plain decoding's in every one of them**: this
is tested with `slem`, `slrs`, `tli`, `union` and `lookup`, greedy and sampled, and with `sd` where the vocabularies are
the same.

The numbers are the percentage of drafted tokens that were accepted, greedily, where *both models would write the same
text* (a line of plain English), so that what is lost is lost between the tokenizers. A dash: nothing could be drafted.
Real models agree less often than these; `hsd vocab-diff` tells what two real tokenizers have in common.

"""

if __name__ == "__main__":
    PAGE.write_text(page())
