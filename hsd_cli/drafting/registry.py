"""The drafting algorithms by name, and how each is put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from hsd_cli.drafting.ar import NoDrafter
from hsd_cli.drafting.context import Context, MirroredContext, TranslatedContext
from hsd_cli.drafting.draft_model import DraftModel, Patience
from hsd_cli.drafting.lookup import LookupDrafter
from hsd_cli.drafting.projection import SharedTokens
from hsd_cli.drafting.protocol import Drafter, ProposalRule, Warp
from hsd_cli.drafting.sd import SameTokens
from hsd_cli.drafting.slem import StringMatchDrafter
from hsd_cli.drafting.slrs import PushForward, StringRejectionDrafter
from hsd_cli.drafting.token_drafter import TokenDrafter
from hsd_cli.errors import UsageError
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.graphs import graphs_for
from hsd_cli.runtime.model import LanguageModel
from hsd_cli.vocab.overlap import overlap
from hsd_cli.vocab.segmentation import segmentation
from hsd_cli.vocab.vocabulary import Vocabulary

RATE_SAMPLE = 256  # target tokens at the prompt's end from which the two tokenizers' lengths are compared


@dataclass(frozen=True)
class Side:
    """One model, its vocabulary, and the prompt in its own ids."""

    model: LanguageModel
    vocabulary: Vocabulary
    prompt: Sequence[int]


@dataclass(frozen=True)
class Pair:
    """All that drafting algorithms are made of. ``warp`` applies the user's settings to the drafter's logits."""

    target: Side
    drafter: Side
    warp: Warp
    rule: ProposalRule
    clock: PhaseClock
    patience: Patience | None = None

    @cached_property
    def mirrored(self) -> DraftModel:
        """The drafter reading the target's own ids."""
        context = MirroredContext(self.target.prompt, self.drafter.model.vocabulary_size)
        return self._draft_model(context, steps_per_token=1.0)

    @cached_property
    def translated(self) -> DraftModel:
        """The drafter reading the text in its own ids."""
        context = TranslatedContext(self.drafter.vocabulary, self.target.vocabulary, self.drafter.prompt)
        return self._draft_model(context, self._steps_per_token())

    def _draft_model(self, context: Context, steps_per_token: float) -> DraftModel:
        device = self.drafter.model.device
        return DraftModel(
            self.drafter.model,
            context,
            len(self.target.prompt),
            self.warp,
            self.clock,
            self.patience,
            steps_per_token,
            graphs_for(device) if device == self.target.model.device else None,
        )

    def _steps_per_token(self) -> float:
        """Drafter ids per target id at the prompt's end (not over all of it: two chat templates differ in length)."""
        end = self.target.prompt[-RATE_SAMPLE:]
        return (1 + len(self.drafter.vocabulary.encode(self.target.vocabulary.text_bytes(end)))) / (1 + len(end))


def _sd(pair: Pair) -> Drafter:
    if difference := first_difference(pair.target.vocabulary, pair.drafter.vocabulary):
        raise UsageError(f"sd needs one shared vocabulary, but {difference}; use slem, tli or auto")
    model = pair.drafter.model
    projection = SameTokens(
        len(pair.target.vocabulary), model.vocabulary_size, pair.target.model.vocabulary_size, model.device
    )
    return TokenDrafter("sd", pair.mirrored, projection, pair.rule, pair.target.model)


def _shared_tokens(name: str, pair: Pair, exclusive: bool) -> Drafter:
    both = overlap(pair.drafter.vocabulary, pair.target.vocabulary)
    projection = SharedTokens(
        both.pairs,
        both.representative,
        (pair.drafter.model.vocabulary_size, pair.target.model.vocabulary_size),
        pair.drafter.model.device,
        exclusive=exclusive,
    )
    return TokenDrafter(name, pair.translated, projection, pair.rule, pair.target.model)


def _slem(pair: Pair) -> Drafter:
    return StringMatchDrafter(pair.translated, (pair.drafter.vocabulary, pair.target.vocabulary), pair.target.model)


def _slrs(pair: Pair) -> Drafter:
    sizes = pair.drafter.model.vocabulary_size, pair.target.model.vocabulary_size
    push_forward = _push_forward(pair.drafter.vocabulary, pair.target.vocabulary, sizes, pair.drafter.model.device)
    return StringRejectionDrafter(pair.translated, push_forward, pair.rule, pair.target.model)


@lru_cache(maxsize=4)  # one text follows another with the same pair
def _push_forward(drafter: Vocabulary, target: Vocabulary, sizes: tuple[int, int], device: torch.device) -> PushForward:
    return PushForward(segmentation(drafter, target), sizes, device)


# A new algorithm is a new file in this folder and one line here.
ALGORITHMS: dict[str, Callable[[Pair], Drafter]] = {
    "ar": lambda pair: NoDrafter(pair.target.model.device),
    "lookup": lambda pair: LookupDrafter(pair.target.model.device),
    "sd": _sd,
    "slem": _slem,
    "slrs": _slrs,
    "tli": lambda pair: _shared_tokens("tli", pair, exclusive=True),
    "union": lambda pair: _shared_tokens("union", pair, exclusive=False),
}


def first_difference(target: Vocabulary, drafter: Vocabulary) -> str | None:
    """In words, the first id that two vocabularies disagree on; ``None`` where they are the same."""
    if target.same_tokens(drafter):
        return None
    for index in range(min(len(target), len(drafter))):
        if target.name(index) != drafter.name(index):
            return f"id {index} is {target.name(index)!r} in the target and {drafter.name(index)!r} in the drafter"
    return f"the target has {len(target)} tokens and the drafter {len(drafter)}"
