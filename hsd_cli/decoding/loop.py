"""The decode loop: draft, verify, commit. One iteration is one forward pass of the target."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import torch

from hsd_cli.decoding.parallel import ParallelDrafter
from hsd_cli.decoding.sampling import Logprobs, Warper
from hsd_cli.decoding.statistics import Statistics
from hsd_cli.decoding.text import TextStream
from hsd_cli.decoding.verification import VerificationRule
from hsd_cli.drafting.protocol import Draft, Drafter
from hsd_cli.errors import HsdError
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.device import upload
from hsd_cli.runtime.lack_of_memory import naming_lack_of_memory
from hsd_cli.runtime.model import LanguageModel

PLAIN = "ar"  # what an iteration without a draft is
FinishReason = Literal["eos", "stop", "length", "context"]


@dataclass(frozen=True)
class Limits:
    """When to stop, and how many target tokens to draft per iteration; none in the first ``plain_passes``."""

    max_new_tokens: int
    lookahead: int
    eos_ids: frozenset[int] = frozenset()
    plain_passes: int = 0


@dataclass(frozen=True)
class Piece:
    """One token, the text that it completes, and whether it was drafted (or is the target's own).

    ``logprobs`` are the target's before any settings, if the warper keeps them.
    """

    token: int
    text: str
    drafted: bool
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class Commit:
    """One iteration's outcome, ``seconds`` after decoding began. ``algorithm`` made the draft.

    ``drafted`` and ``accepted`` count proposals; ``tail`` is text that was held back until the end.
    """

    pieces: tuple[Piece, ...]
    algorithm: str
    drafted: int
    accepted: int
    seconds: float
    tail: str = ""
    finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces) + self.tail


def decode(
    target: LanguageModel,
    drafter: Drafter,
    prompt: Sequence[int],
    limits: Limits,
    *,
    rule: VerificationRule,
    warper: Warper,
    text: TextStream,
    clock: PhaseClock,
    statistics: Statistics,
    lose_drafter: Callable[[Exception], bool] = lambda _: False,
) -> Generator[Commit]:
    """Continues ``prompt`` (target ids, at least one, and fewer than the context holds) and yields every commit.

    What ``target`` has already read of the prompt, in an earlier text, is not read again. Where its memory is too small
    for a pass, drafts get shorter; then ``lose_drafter`` is asked to free some, and says whether there was any.
    The last one has a ``finish_reason``. Raises ``HsdError`` when the target's numbers are not sound,
    ``torch.OutOfMemoryError`` when not even a plain pass fits.
    """
    begun = perf_counter()
    warper.follow(prompt, 0)
    ids = list(prompt)
    target.begin(ids)
    room = target.context_size - len(prompt)
    budget = min(limits.max_new_tokens, room)
    statistics.cached_prompt_tokens = target.length
    if target.length < len(ids) - 1:
        with clock.waited_for("prefill", target.device, after="prefill"):
            _catch_up(target, ids, lose_drafter)
    lookahead = limits.lookahead
    ahead = drafter if isinstance(drafter, ParallelDrafter) else None
    while True:
        position = len(ids) - len(prompt)
        # The target always adds a token of its own, so the last one is never worth drafting.
        wanted = min(lookahead, budget - position - 1)
        if statistics.iterations < limits.plain_passes:
            wanted = 0
        # Nothing has gradients: each operation is a little shorter if PyTorch need not look.
        with torch.inference_mode(), clock.phase("draft"):
            draft = drafter.draft(ids, wanted).first(wanted)
        proposed = len(draft)
        with torch.inference_mode(), clock.waited_for("verify", target.device, after="draft"):
            draft, tokens, accepted = _verify_what_fits(target, draft, lose_drafter, rule, warper, ids, ahead)
        if len(draft) < proposed:
            lookahead = len(draft)
        target.rollback(len(ids) + accepted)
        reason = _cut(tokens, budget - position, limits, room)
        ids += tokens
        pieces = tuple(_push(text, tokens, accepted, warper.logprobs(tokens)))
        if text.stopped:
            reason = "stop"
        accepted = min(accepted, len(pieces))
        algorithm = draft.algorithm if len(draft) else PLAIN
        statistics.count(algorithm, len(draft), accepted, len(pieces))
        tail = "" if reason is None else text.finish()
        yield Commit(pieces, algorithm, len(draft), accepted, perf_counter() - begun, tail, reason)
        if reason is not None:
            return
        warper.follow(ids, len(ids) - len(tokens))


def _catch_up(target: LanguageModel, text: Sequence[int], lose_drafter: Callable[[Exception], bool]) -> None:
    """Has the target read all of ``text`` but the last token."""
    while unread := text[target.length : -1]:
        try:
            with naming_lack_of_memory():
                target.prefill(unread)
        except torch.OutOfMemoryError as error:
            if not lose_drafter(error):
                raise
            target.rollback(0)  # a pass that ended in the middle: not all layers have read the same


def _verify_what_fits(
    target: LanguageModel,
    draft: Draft,
    lose_drafter: Callable[[Exception], bool],
    rule: VerificationRule,
    warper: Warper,
    text: Sequence[int],
    ahead: ParallelDrafter | None,
) -> tuple[Draft, list[int], int]:
    """``_verify`` of as much of ``draft`` as there is memory for. How much that is does not depend on its tokens."""
    while True:
        try:
            return draft, *_verify(target, draft, rule, warper, text, ahead)
        except torch.OutOfMemoryError as error:
            if ahead is not None:
                ahead.drop()
            if not len(draft) and not lose_drafter(error):
                raise
        draft = draft.first(len(draft) // 2)
        target.rollback(0)
        _catch_up(target, text, lose_drafter)


@naming_lack_of_memory()
def _verify(
    target: LanguageModel,
    draft: Draft,
    rule: VerificationRule,
    warper: Warper,
    text: Sequence[int],
    ahead: ParallelDrafter | None,
) -> tuple[list[int], int]:
    """One pass of the target over the draft: the tokens to append, and how many of them were drafted."""
    fed = upload(text[-1:], target.device)
    if len(draft):
        # Void proposals need some id to occupy their place; what the target says after them is never used.
        fed = torch.cat([fed, draft.tokens.clamp(max=target.vocabulary_size - 1)])
    predicted = target.run(fed) if ahead is None else ahead.check(target, fed, draft)
    logits = warper.logits(predicted, draft.tokens)
    verdict = rule.verify(logits, draft if ahead is None else draft.followed_by(ahead.guess()), len(text))
    if not verdict.sound:
        remedy = "download it again" if predicted.dtype == torch.float32 else "try --dtype float32"
        raise HsdError(f"the target's logits are not numbers; {remedy}")
    return verdict.tokens, verdict.accepted


def _cut(tokens: list[int], budget: int, limits: Limits, room: int) -> FinishReason | None:
    """Drops what lies behind an end-of-text token or over the budget; says why the text ends, if it does."""
    end = next((i for i, token in enumerate(tokens) if token in limits.eos_ids), None)
    if end is not None and end < budget:
        del tokens[end + 1 :]
        return "eos"
    del tokens[budget:]
    if len(tokens) < budget:
        return None
    return "length" if limits.max_new_tokens <= room else "context"


def _push(
    text: TextStream, tokens: Sequence[int], accepted: int, logprobs: Sequence[Logprobs | None]
) -> Iterator[Piece]:
    for place, (token, own) in enumerate(zip(tokens, logprobs, strict=True)):
        yield Piece(token, text.push(token), place < accepted, own)
        if text.stopped:
            return
