"""Plain decoding: no draft at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.drafting.protocol import Draft


class NoDrafter:
    """The baseline, and the fallback where drafting does not pay."""

    def __init__(self, device: torch.device) -> None:
        self._nothing = Draft(torch.empty(0, dtype=torch.int64, device=device), algorithm="ar")

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        return self._nothing
