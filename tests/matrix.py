"""What is found of every architecture, and the page that says so: ``python -m tests.matrix`` writes docs/models.md."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from transformers import PreTrainedModel

from hsd_cli.decoding.loop import Limits, decode
from hsd_cli.decoding.sampling import Warper
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.decoding.statistics import Statistics
from hsd_cli.decoding.text import TextStream
from hsd_cli.decoding.verification import Coupled
from hsd_cli.drafting.protocol import Draft, Drafter
from hsd_cli.drafting.registry import ALGORITHMS, Pair, Side
from hsd_cli.errors import HsdError
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.dense import dense_decoder
from hsd_cli.runtime.model import CachedModel
from tests.architectures import (
    BYTES,
    CONFIGS,
    MULTIMODAL,
    RECURRENT,
    REFUSED,
    RESCALED,
    byte_vocabulary,
    imperfect_copy,
    random_model,
)

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
PROMPT = list(b"for byte in text:")
TOKENS = 80
FEWER = 30  # for what is done with every architecture
# The drafter's numbering of the bytes.
SHUFFLED = random.Random(0).sample(range(BYTES), BYTES)
EXACT = CONFIGS | RECURRENT | MULTIMODAL
ALL = EXACT | REFUSED | RESCALED
SEEDS = {"bloom": 1}  # where the first text that is written is one token again and again


@cache
def target_model(architecture: str) -> PreTrainedModel:
    return random_model(ALL[architecture], seed=SEEDS.get(architecture, 0))


@cache
def drafter_model(architecture: str, shuffled: bool) -> PreTrainedModel:
    return imperfect_copy(target_model(architecture), SHUFFLED if shuffled else list(range(BYTES)))


@cache
def reference(architecture: str) -> list[int]:
    ids = torch.tensor([PROMPT])
    written = target_model(architecture).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False
    )
    return written[0, len(PROMPT) :].tolist()


class Recorded:
    """A drafter, and what it drafted."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self.drafts: list[list[int]] = []

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        draft = self._drafter.draft(text, lookahead)
        self.drafts.append(draft.tokens.tolist())
        return draft


def greedy(
    target: CachedModel, drafter: CachedModel, algorithm: str, lookahead: int, tokens: int = TOKENS
) -> tuple[list[int], Statistics, list[list[int]]]:
    """Our text, what was counted, and the drafts. The drafter's bytes are ``SHUFFLED``, but for ``sd``."""
    vocabulary, other = byte_vocabulary(), byte_vocabulary(None if algorithm == "sd" else SHUFFLED)
    rule, clock, statistics = Coupled(None), PhaseClock(), Statistics()
    pair = Pair(
        Side(target, vocabulary, PROMPT),
        Side(drafter, other, other.encode(bytes(PROMPT))),
        Warper(SamplingSettings(), BYTES, drafter.device),
        rule,
        clock,
    )
    recorded = Recorded(ALGORITHMS[algorithm](pair))
    commits = decode(
        target,
        recorded,
        PROMPT,
        Limits(tokens, lookahead),
        rule=rule,
        warper=Warper(SamplingSettings(), BYTES, target.device),
        text=TextStream(vocabulary),
        clock=clock,
        statistics=statistics,
    )
    return [piece.token for commit in commits for piece in commit.pieces], statistics, recorded.drafts


def with_itself(architecture: str, algorithm: str, lookahead: int) -> tuple[list[int], Statistics]:
    """The text, with an imperfect copy of the model as its drafter."""
    target = CachedModel(target_model(architecture), capacity=8)
    drafter = CachedModel(drafter_model(architecture, shuffled=algorithm != "sd"), capacity=8)
    text, statistics, _ = greedy(target, drafter, algorithm, lookahead)
    return text, statistics


class Forgetful(CachedModel):
    """Reads all of the text anew instead of rolling back."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._seen: list[int] = []
        super().__init__(model, capacity=8)

    def _forward(self, ids: torch.Tensor, keep: int) -> torch.Tensor:
        self._seen = [*self._seen[: self._read], *ids.tolist()]
        super().rollback(0)
        return super()._forward(torch.tensor(self._seen), keep)

    def rollback(self, length: int) -> None:
        self._read = length


@dataclass(frozen=True)
class Finding:
    """What a model is good for: each "exact", "wrong" or "refused". ``lean`` is a word if there is a lean pass."""

    target: str
    drafter: str
    rollback: str
    lean: str = ""
    note: str = ""


@cache
def finding(architecture: str) -> Finding:
    model = target_model(architecture)
    try:
        trial = CachedModel(model, capacity=8)
    except HsdError as error:
        return Finding("refused", "refused", "refused", note=str(error))
    text, statistics = with_itself(architecture, "sd", lookahead=4)
    both_ways = 0 < statistics.accepted < statistics.drafted
    llama = target_model("llama")
    written, _, drafts = greedy(CachedModel(llama, 8), CachedModel(model, 8), "slem", 3, FEWER)
    _, _, fresh = greedy(CachedModel(llama, 8), Forgetful(model), "slem", 3, FEWER)
    return Finding(
        _verdict(text == reference(architecture) and both_ways),
        _verdict(written == reference("llama")[:FEWER] and drafts == fresh),
        _verdict(rolls_back(model)),
        "lean" if dense_decoder(model) is not None else "",
        "; ".join([*(["text alone"] if architecture in MULTIMODAL else []), *_notes(trial)]),
    )


def _notes(model: CachedModel) -> list[str]:
    notes = []
    if any(getattr(layer, "window", None) for layer in model._cache.layers):
        notes.append("sliding windows or chunks")
    if model._replay is not None:
        notes.append("recurrent: rolled back by reading again")
        if model._replay.one_by_one:
            notes.append("the library continues a text one token at a time, so a draft is not verified any faster")
    return notes


def _verdict(holds: bool) -> str:
    return "exact" if holds else "wrong"


def rolls_back(model: PreTrainedModel) -> bool:
    """Whether a model that has read and forgotten a lot goes on as one that never did."""
    kept, chooser, used = list(PROMPT), random.Random(0), CachedModel(model, capacity=4)
    used.prefill(kept)
    for _ in range(12):
        drafted = [chooser.randrange(BYTES) for _ in range(chooser.randrange(1, 9))]
        used.run(torch.tensor(drafted))
        kept = (kept + drafted)[: used.length - chooser.randrange(len(drafted) + 1)]
        used.rollback(len(kept))
    fresh = CachedModel(model, capacity=1000)
    fresh.prefill(kept)
    following = torch.tensor([1, 2, 3])
    return torch.allclose(used.run(following), fresh.run(following), rtol=1e-4, atol=1e-4)


HEADER = """\
# Models

Written by `python -m tests.matrix` from what it finds with tiny random models of the installed transformers; a test
fails where this page says something else.

- **As target**: greedy text is `generate`'s, token for token, with drafts both accepted and refused.
- **As drafter**: drafts for a Llama are those of a model that reads the whole text anew each time, and the text is the
  Llama's own.
- **Rollback**: after tokens were read and forgotten, logits are those of a model that never read them.
- **Pass**: a lean one takes less time, and the texts of a batch share it. It is for weights that are not quantized, and
  for the attention that is chosen by default.

From GGUF files transformers reads only some of these kinds. [Good to know](details.md) says which were tried.

| Architecture | `model_type` | As target | As drafter | Rollback | Pass | Note |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    lines = []
    for name in EXACT | REFUSED:
        found = finding(name)
        cells = name, f"`{ALL[name].model_type}`", found.target, found.drafter, found.rollback, found.lean, found.note
        lines.append(f"| {' | '.join(cells)} |\n")
    return HEADER + "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
