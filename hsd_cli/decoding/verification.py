"""The verifier: the only place where losslessness lives.

Given the target's distributions and an honest draft, both rules accept a prefix of the draft and add one token of the
target's own, so that the text has exactly the target's distribution.
"""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple, Protocol

import torch

from hsd_cli.decoding.noise import exponential_noise
from hsd_cli.drafting.protocol import Columns, Draft, ProposalRule
from hsd_cli.runtime.host import to_host
from hsd_cli.runtime.model import common_prefix


class Verdict(NamedTuple):
    """How many proposals are ``accepted``, and the ``tokens`` to append: these, and one of the target's own.

    ``sound``: the numbers were numbers (no NaN).
    """

    accepted: int
    tokens: list[int]
    sound: bool


class VerificationRule(ProposalRule, Protocol):
    """How drafts are proposed and checked; both sides of the same coin."""

    def verify(self, logits: torch.Tensor, draft: Draft, position: int) -> Verdict:
        """Checks ``draft`` against the target's warped ``logits`` (float32 ``[m + 1, V]``) for ``position``
        of the text and the following ones. There may be a proposal for the last row, too: a guess at the target's own
        token, which then need not be another one. Waits once for the device.
        """


class Randomness:
    """The random choices of rejection sampling, from a torch generator (its device decides where they are made)."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def draw(self, weights: torch.Tensor) -> torch.Tensor:
        """An index (int64, no dimensions) with probability proportional to ``weights`` (``[V]``); never waits.

        By the inverse of the cumulated weights, in float64 (which MPS lacks): one random number, where a race of
        exponential clocks takes one for each token.
        """
        cumulated = weights.cumsum(0, dtype=torch.float32 if weights.device.type == "mps" else torch.float64)
        # In (0, 1], and the first place that reaches it: never one without weight.
        share = 1 - torch.empty_like(cumulated[:1]).uniform_(generator=self.generator)
        return torch.searchsorted(cumulated, share * cumulated[-1:])[0].clamp(max=len(weights) - 1)

    def accept(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Independent coins, bool ``[m]``."""
        return torch.empty_like(probabilities).uniform_(generator=self.generator) < probabilities


class Rejection:
    """Speculative sampling (Leviathan et al. 2023, arXiv 2211.17192): the most acceptance that one draft can have."""

    uses_psi = True

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness
        self.generator = randomness.generator

    def propose(self, weights: torch.Tensor, columns: Columns, position: torch.Tensor) -> torch.Tensor:
        return self._randomness.draw(weights)[None]

    def verify(self, logits: torch.Tensor, draft: Draft, position: int) -> Verdict:
        accepted, weights = self._judge(logits.softmax(-1), draft)
        own = self._randomness.draw(weights)
        # Joined they are float32, which holds every id.
        numbers = torch.cat([weights.sum(0, keepdim=True), accepted[None], own[None], draft.tokens])
        mass, *ids = to_host(numbers)
        count, token, *tokens = map(int, ids)
        return Verdict(count, [*tokens[:count], token], isfinite(mass))

    def _judge(self, p: torch.Tensor, draft: Draft) -> tuple[torch.Tensor, torch.Tensor]:
        """How many proposals are accepted (int64, no dimensions), and what the target's own token is drawn from."""
        if len(draft) == 0:
            return torch.zeros((), dtype=torch.int64, device=p.device), p[0]
        psi = _point_masses(draft.tokens, p.shape[1]) if draft.psi is None else draft.psi
        accepted = self._randomness.accept(_acceptance(p, psi, draft.tokens)).cumprod(0).sum()
        at_stop = p.index_select(0, accepted.clamp(max=len(p) - 1)[None])[0]
        # After the last proposal there is nothing to subtract: the bonus token is drawn from p itself.
        proposed = psi.index_select(0, accepted.clamp(max=len(draft) - 1)[None])[0] * (accepted < len(draft))
        residual = (at_stop - proposed).clamp(min=0)
        # p and ψ can agree to the last bit and still be rejected by rounding: then p is as good.
        weights = torch.where(residual.sum() > 0, residual, at_stop)
        if len(draft) < len(p):
            return accepted, weights
        # If all are accepted, the last one is the target's own token.
        guessed = _point_masses(draft.tokens[-1:], p.shape[1])[0]
        return accepted.clamp(max=len(p) - 1), torch.where(accepted < len(p), weights, guessed)


def _point_masses(tokens: torch.Tensor, size: int) -> torch.Tensor:
    psi = torch.zeros(len(tokens), size, device=tokens.device)
    # Void proposals have no place in the row: their mass is missing from it.
    return psi.scatter_(1, tokens.clamp(max=size - 1)[:, None], (tokens < size).float()[:, None])


def _acceptance(p: torch.Tensor, psi: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """``min(1, p(t) / ψ(t))`` for each proposal, ``[m]``; zero for void ones."""
    size = p.shape[1]
    column = tokens.clamp(max=size - 1)[:, None]
    p_t, psi_t = p[: len(tokens)].gather(1, column)[:, 0], psi.gather(1, column)[:, 0]
    possible = (tokens < size) & (psi_t > 0)
    return (p_t / psi_t).clamp(max=1).masked_fill(~possible, 0)  # not `where`, which copies its 0 to the device


class Coupled:
    """Drafter-invariant verification (arXiv 2408.07978): both sides draw with the noise of the output position.

    The text is the same as plain decoding's with that seed, whatever is drafted. Without a seed there is no noise and
    every draw is an ``argmax``: greedy decoding.
    """

    generator: torch.Generator | None = None
    uses_psi = False

    def __init__(self, seed: int | None) -> None:
        self._seed = seed

    def propose(self, weights: torch.Tensor, columns: Columns, position: torch.Tensor) -> torch.Tensor:
        """The token that the target would draw if ``ψ`` were its law, then the likeliest way to draft it."""
        together = columns.together(weights)
        if self._seed is not None:
            together = together / exponential_noise(self._seed, position, columns.target_ids)[0]
        return columns.heaviest(weights, together.argmax(0, keepdim=True))

    def verify(self, logits: torch.Tensor, draft: Draft, position: int) -> Verdict:
        rows, size = logits.shape
        if self._seed is not None:
            positions = torch.arange(position, position + rows, device=logits.device)
            tokens = torch.arange(size, device=logits.device)
            logits = logits - exponential_noise(self._seed, positions, tokens).log()
        chosen = logits.argmax(-1, keepdim=True)  # of a row that has a NaN, that is the greatest
        values = logits.gather(1, chosen)[:, 0]
        # Joined they are float32, which holds every id.
        numbers = to_host(torch.cat([values, chosen[:, 0], draft.tokens]))
        own, proposed = [*map(int, numbers[rows : 2 * rows])], numbers[2 * rows :]
        accepted = min(common_prefix(own, proposed), rows - 1)
        return Verdict(accepted, own[: accepted + 1], all(map(isfinite, numbers[:rows])))
