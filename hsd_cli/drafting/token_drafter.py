"""Drafting one target token per drafter step: standard speculation, the union baseline and the intersection."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.drafting.drawing import Drawing
from hsd_cli.drafting.projection import Projection
from hsd_cli.drafting.protocol import Draft


class TokenDrafter:
    """Every drafter distribution becomes a ``ψ`` over the target's vocabulary, from which one token is drawn."""

    def __init__(self, drawing: Drawing, projection: Projection) -> None:
        self._drawing = drawing
        self._projection = projection

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        name, drawn = self._drawing.name, self._drawing.roll_out(text, lookahead)
        if not drawn:
            return Draft(torch.empty(0, dtype=torch.int64, device=self._drawing.target_device), algorithm=name)
        columns, weights = zip(*drawn, strict=True)
        tokens = self._projection.target_ids.index_select(0, torch.cat(columns))
        psi = self._projection.psi(torch.stack(weights)) if self._drawing.uses_psi else None
        return Draft(tokens, psi, name)
