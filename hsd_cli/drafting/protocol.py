"""What a drafting algorithm hands to the verifier, and what it may ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Draft:
    """Up to ``m`` proposals in a row, made by the drafter called ``algorithm``.

    ``tokens``: int64 ``[m]`` on the target's device. An id equal to the target's vocabulary size is a *void* proposal:
    something was drawn that the target has no token for, which counts as rejected.
    ``psi``: float32 ``[m, V]``, row ``i`` the distribution that ``tokens[i]`` was drawn from given all that was
    revealed before; the mass a row lacks is its probability of being void. ``None`` stands for point masses, or
    for what a rule does not use.
    """

    tokens: torch.Tensor
    psi: torch.Tensor | None = None
    algorithm: str = ""

    def __len__(self) -> int:
        return len(self.tokens)

    def first(self, count: int) -> Draft:
        """The first ``count`` proposals. Cutting by *position* keeps ``psi`` honest, cutting by token would not."""
        return Draft(self.tokens[:count], None if self.psi is None else self.psi[:count], self.algorithm)

    def after(self, count: int) -> Draft:
        """What follows the first ``count`` proposals, once these are in the text."""
        return Draft(self.tokens[count:], None if self.psi is None else self.psi[count:], self.algorithm)

    def to(self, device: torch.device) -> Draft:
        return Draft(self.tokens.to(device), None if self.psi is None else self.psi.to(device), self.algorithm)

    def followed_by(self, other: Draft) -> Draft:
        """Both in a row. Either is empty, or both have ``psi``, or none."""
        if not len(self) or not len(other):
            return self if len(self) else other
        both = None if self.psi is None or other.psi is None else torch.cat([self.psi, other.psi])
        return Draft(torch.cat([self.tokens, other.tokens]), both, self.algorithm)


class Columns(Protocol):
    """What can be drawn: a target token each, ``target_ids`` (int64 ``[C]``), of which some may be the same."""

    target_ids: torch.Tensor

    def together(self, weights: torch.Tensor) -> torch.Tensor:
        """Of each column the weight of its token in all columns that matter; ``[C]``."""

    def heaviest(self, weights: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """Of the columns with the same token as ``column`` (int64 ``[1]``) the one with the greatest weight."""


class ProposalRule(Protocol):
    """How a verification rule wants proposals to be drawn from their distribution.

    ``generator`` is where its random numbers come from, if from any; ``uses_psi``: whether it has to be told ``psi``.
    """

    @property
    def generator(self) -> torch.Generator | None: ...

    @property
    def uses_psi(self) -> bool: ...

    def propose(self, weights: torch.Tensor, columns: Columns, position: torch.Tensor) -> torch.Tensor:
        """A column (int64 ``[1]``) drawn by the ``weights`` of ``columns`` (``[C]``) for position ``position`` (int64
        ``[1]``) of the text."""


class Warp(Protocol):
    """The user's sampling settings, applied to logits."""

    def probabilities(
        self, logits: torch.Tensor, drafted: torch.Tensor, only: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Distributions ``[k, V]`` for the last ``k`` places of the context followed by ``drafted`` (``[n]``); over the
        ids ``only`` (int64 ``[C]``) if given, ``[k, C]``."""

    def penalised(self, logits: torch.Tensor, drafted: torch.Tensor) -> torch.Tensor:
        """Logits ``[k, V]`` for the same places with the repetition penalty alone."""

    def follow(self, ids: Sequence[int], unchanged: int) -> None:
        """The context is now ``ids``, of which the first ``unchanged`` are as they were."""


class Drafter(Protocol):
    """One drafting algorithm at work on one text."""

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        """At most ``lookahead`` proposals for what follows ``text``; fewer, even none, are legal.

        ``text`` is the same list at every call, grown by what was committed: target ids, the prompt's first. To those
        with a drafter model it may also have been guessed: then what was new at the last call may be another now.
        """
