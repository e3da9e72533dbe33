"""The heterogeneous pairs and settings of the law tests, and the real engine parts put around table models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from hsd_cli.decoding.loop import Commit, Limits, decode
from hsd_cli.decoding.sampling import Warper
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.decoding.statistics import Statistics
from hsd_cli.decoding.text import TextStream
from hsd_cli.decoding.verification import VerificationRule
from hsd_cli.drafting.ar import NoDrafter
from hsd_cli.drafting.draft_model import Patience
from hsd_cli.drafting.lookup import LookupDrafter
from hsd_cli.drafting.protocol import Drafter
from hsd_cli.drafting.registry import ALGORITHMS, Pair, Side
from hsd_cli.planner.controller import Controller
from hsd_cli.planner.costs import Costs
from hsd_cli.planner.experience import Experience
from hsd_cli.planner.pace import Pace
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.vocab.vocabulary import Vocabulary
from tests.tiny import END, TableModel, vocabulary

SETTINGS = {
    "temperature 1": SamplingSettings(temperature=1.0),
    "temperature 0.7, top-p 0.9": SamplingSettings(temperature=0.7, top_p=0.9),
    "top-k 3": SamplingSettings(temperature=1.0, top_k=3),
    "repetition penalty": SamplingSettings(temperature=1.0, repetition_penalty=1.5),
}

# The target's and the drafter's tokens. Ids start at 1: id 0 is <unk>.
VOCABULARIES = {
    "same": (["a", "b", "ab", END], ["a", "b", "ab", END]),
    "heterogeneous": (["a", "b", "ab", END], ["b", "aa", "ba", "a", END]),
    "duplicates": (["a", "<0x61>", "b", END], ["a", "<0x61>", "b", "<0x62>", END]),
    "subset": (["a", "b", "ab", "ba", END], ["a", "b", END]),
    "disjoint": (["a", "b", "ab", END], ["aab", "bba", END]),
    "equal size": (["a", "b", "ab", END], ["bb", "a", END, "b"]),
    "branching": (["a", "b", END], ["a", "aa", "ab", "b", "ba", END]),
}
PROMPT = b"ababab"  # long enough for copies


@dataclass
class TinyPair:
    """Two table models over two vocabularies. The text begins with ``prompt`` (target ids).

    ``auto`` drafts wherever it can: its choices have to do no harm, not to pay.
    """

    target_vocabulary: Vocabulary
    drafter_vocabulary: Vocabulary
    order: int = 2
    seed: int = 6
    target_padding: int = 0
    drafter_padding: int = 0
    patience: Patience | None = None

    @property
    def prompt(self) -> list[int]:
        return self.target_vocabulary.encode(PROMPT)

    def target(self) -> TableModel:
        return TableModel(len(self.target_vocabulary) + self.target_padding, self.seed, self.order)

    def commits(
        self,
        algorithm: str,
        rule: VerificationRule,
        settings: SamplingSettings,
        tokens: int,
        lookahead: int = 2,
        eos: bool = True,
    ) -> Iterator[Commit]:
        target = self.target()
        clock = PhaseClock()
        return decode(
            target,
            self._drafter(algorithm, target, rule, settings, clock),
            self.prompt,
            Limits(tokens, lookahead, frozenset(self.target_vocabulary.eos_ids if eos else ())),
            rule=rule,
            warper=Warper(settings, target.vocabulary_size, target.device),
            text=TextStream(self.target_vocabulary),
            clock=clock,
            statistics=Statistics(),
        )

    def _drafter(
        self, algorithm: str, target: TableModel, rule: VerificationRule, settings: SamplingSettings, clock: PhaseClock
    ) -> Drafter:
        if algorithm == "ar":
            return NoDrafter(target.device)
        drafter = TableModel(len(self.drafter_vocabulary) + self.drafter_padding, self.seed + 1, self.order)
        prompt = self.drafter_vocabulary.encode(PROMPT) or [0]
        warp = Warper(settings, drafter.vocabulary_size, drafter.device)
        costs = Costs(step_guess=0.1)
        pace = Pace(costs)
        pair = Pair(
            Side(target, self.target_vocabulary, self.prompt),
            Side(drafter, self.drafter_vocabulary, prompt),
            warp,
            rule,
            clock,
            pace if algorithm == "auto" else self.patience,
        )
        if algorithm != "auto":
            return ALGORITHMS[algorithm](pair)
        makers = {name: partial(ALGORITHMS[name], pair) for name in ("slrs", "tli")}
        lookup = LookupDrafter(target.device)
        return Controller(makers, lookup, NoDrafter(target.device), pace, Experience(costs), clock, guard=False)


def tiny_pair(name: str, order: int = 2) -> TinyPair:
    target, drafter = VOCABULARIES[name]
    return TinyPair(vocabulary(target), vocabulary(drafter), order)


def token_ids(commits: Iterator[Commit]) -> list[int]:
    return [piece.token for commit in commits for piece in commit.pieces]


def target_row(model: TableModel, ids: list[int], settings: SamplingSettings) -> torch.Tensor:
    """The target's distribution after ``ids``, float64 ``[V]``, from the settings' definition alone."""
    logits = model.logits_after(ids).double()
    for token in set(ids):
        logits[token] *= settings.repetition_penalty ** (1 if logits[token] < 0 else -1)
    if settings.greedy:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).double()
    p = (logits / settings.temperature).softmax(-1)
    order = p.argsort(descending=True)
    keep = torch.ones(len(p), dtype=torch.bool)
    if settings.top_k:
        keep[order[settings.top_k :]] = False
    if settings.top_p < 1:
        before = p[order].cumsum(0) - p[order]
        keep[order[before >= settings.top_p]] = False
    p = p * keep
    return p / p.sum()


def exact_law(pair: TinyPair, settings: SamplingSettings, length: int) -> dict[tuple[int, ...], float]:
    """Probability of every text of ``length`` tokens, or fewer if it ends."""
    model, eos = pair.target(), pair.target_vocabulary.eos_ids
    done: dict[tuple[int, ...], float] = {}
    open_texts = {(): 1.0}
    for step in range(length):
        grown: dict[tuple[int, ...], float] = {}
        for text, probability in open_texts.items():
            row = target_row(model, [*pair.prompt, *text], settings)
            for token, p in enumerate(row.tolist()):
                if p > 0:
                    place = done if token in eos or step == length - 1 else grown
                    place[(*text, token)] = probability * p
        open_texts = grown
    return done
