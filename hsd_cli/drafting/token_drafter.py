"""Drafting one target token per drafter step: standard speculation, the union baseline and the intersection."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.drafting.drawing import Drawing
from hsd_cli.drafting.projection import Projection
from hsd_cli.drafting.protocol import Draft


class TokenDrafter:
    """From every drafter distribution one token is drawn that the target has, too."""

    def __init__(self, drawing: Drawing, projection: Projection) -> None:
        self._drawing = drawing
        self._projection = projection

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        drawn = self._drawing.roll_out(text, lookahead)
        if not drawn:
            return self._drawing.nothing
        columns, weights = zip(*drawn, strict=True)
        tokens = self._projection.target_ids.index_select(0, torch.cat(columns))
        psi = self._projection.psi(torch.stack(weights)) if self._drawing.uses_psi else None
        return Draft(tokens, psi, self._drawing.name).to(self._drawing.target_device)
