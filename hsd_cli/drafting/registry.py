"""The drafting algorithms by name, and how each is put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from hsd_cli.drafting.ar import NoDrafter
from hsd_cli.drafting.context import Context, MirroredContext, TranslatedContext
from hsd_cli.drafting.draft_model import DraftModel, Patience
from hsd_cli.drafting.drawing import Drawing
from hsd_cli.drafting.lookup import LookupDrafter
from hsd_cli.drafting.projection import Projection
from hsd_cli.drafting.protocol import Drafter, ProposalRule, Warp
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

Sizes = tuple[int, int]  # of the heads of drafter and target
Devices = tuple[torch.device, torch.device]
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

    @property
    def sizes(self) -> Sizes:
        return self.drafter.model.vocabulary_size, self.target.model.vocabulary_size

    @property
    def devices(self) -> Devices:
        """The drafter's, and the one it draws on: where the random numbers are, else beside it. To draw on the target's
        would be to wait for its pass, if that has one."""
        here, generator = self.drafter.model.device, self.rule.generator
        return here, here if generator is None else generator.device

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
        device, drawing = self.devices
        return DraftModel(
            self.drafter.model,
            context,
            len(self.target.prompt),
            self.warp,
            self.clock,
            self.patience,
            steps_per_token,
            graphs_for(device) if device == drawing else None,
        )

    def _steps_per_token(self) -> float:
        """Drafter ids per target id at the prompt's end (not over all of it: two chat templates differ in length)."""
        end = self.target.prompt[-RATE_SAMPLE:]
        return (1 + len(self.drafter.vocabulary.encode(self.target.vocabulary.text_bytes(end)))) / (1 + len(end))


def _sd(pair: Pair) -> Drafter:
    if difference := first_difference(pair.target.vocabulary, pair.drafter.vocabulary):
        raise UsageError(f"sd needs one shared vocabulary, but {difference}; use slem, tli or auto")
    # The models' heads may be padded differently: ids past the vocabulary are never proposed.
    projection = _same_tokens(len(pair.target.vocabulary), pair.sizes, pair.devices)
    return _token_drafter("sd", pair, pair.mirrored, projection)


def _shared_tokens(name: str, pair: Pair, void: bool) -> Drafter:
    projection = _projection(pair.drafter.vocabulary, pair.target.vocabulary, pair.sizes, pair.devices, void)
    return _token_drafter(name, pair, pair.translated, projection)


def _token_drafter(name: str, pair: Pair, drafter: DraftModel, projection: Projection) -> Drafter:
    return TokenDrafter(Drawing(name, drafter, projection, pair.rule, pair.target.model), projection)


def _slem(pair: Pair) -> Drafter:
    return StringMatchDrafter(pair.translated, (pair.drafter.vocabulary, pair.target.vocabulary), pair.target.model)


def _slrs(pair: Pair) -> Drafter:
    push_forward = _push_forward(pair.drafter.vocabulary, pair.target.vocabulary, pair.sizes, pair.devices)
    drawing = Drawing(
        "slrs", pair.translated, push_forward.first, pair.rule, pair.target.model, lengths=push_forward.lengths
    )
    return StringRejectionDrafter(drawing, push_forward)


# One text follows another with the same pair.
@lru_cache(maxsize=4)
def _same_tokens(count: int, sizes: Sizes, devices: Devices) -> Projection:
    return Projection([(token, token) for token in range(count)], sizes, devices)


@lru_cache(maxsize=4)
def _projection(drafter: Vocabulary, target: Vocabulary, sizes: Sizes, devices: Devices, void: bool) -> Projection:
    return Projection(overlap(drafter, target).pairs, sizes, devices, void=void)


@lru_cache(maxsize=4)
def _push_forward(drafter: Vocabulary, target: Vocabulary, sizes: Sizes, devices: Devices) -> PushForward:
    return PushForward(segmentation(drafter, target), sizes, devices)


# A new algorithm is a new file in this folder and one line here.
ALGORITHMS: dict[str, Callable[[Pair], Drafter]] = {
    "ar": lambda pair: NoDrafter(pair.target.model.device),
    "lookup": lambda pair: LookupDrafter(pair.target.model.device),
    "sd": _sd,
    "slem": _slem,
    "slrs": _slrs,
    "tli": lambda pair: _shared_tokens("tli", pair, void=False),
    "union": lambda pair: _shared_tokens("union", pair, void=True),
}


def first_difference(target: Vocabulary, drafter: Vocabulary) -> str | None:
    """In words, the first id that two vocabularies disagree on; ``None`` where they are the same."""
    if target.same_tokens(drafter):
        return None
    for index in range(min(len(target), len(drafter))):
        if target.name(index) != drafter.name(index):
            return f"id {index} is {target.name(index)!r} in the target and {drafter.name(index)!r} in the drafter"
    return f"the target has {len(target)} tokens and the drafter {len(drafter)}"
