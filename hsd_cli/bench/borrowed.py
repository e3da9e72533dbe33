"""The library's own model, with the weights of ours: no large one is in memory twice.

What lies in rows is shared. Weights that our passes have in oneDNN's order are laid out in rows for as long as the
library writes, and back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.runtime.packing import PackedLinear, PackedPart


class Borrowed:
    """``model`` is ``lender``'s as the library has it: its pass is to be called within ``in_rows`` alone, and
    ``lender``'s never there."""

    def __init__(self, lender: LoadedModel) -> None:
        model: Any = lender.model
        shared = [*model.parameters(), *model.buffers(), *(m for m in model.modules() if type(m) is PackedLinear)]
        twin = deepcopy(model, {id(each): each for each in shared})
        self._maps: dict[PackedLinear, dict[int, nn.Linear]] = defaultdict(dict)  # by their first row
        for parent in list(twin.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear and not child.weight.is_contiguous():  # columns, which large ones never are
                    child.weight = nn.Parameter(child.weight.detach().contiguous(), requires_grad=False)
                elif isinstance(child, PackedPart):
                    setattr(parent, name, self._part(child.whole, child.first, child.out_features))
                elif isinstance(child, PackedLinear) and not isinstance(parent, PackedPart):
                    setattr(parent, name, self._part(child, 0, child.out_features))
        self._share_head(twin)
        self.model = replace(lender, model=twin)

    @contextmanager
    def in_rows(self) -> Iterator[None]:
        """Laid out one after another, so that little is in memory twice."""
        rows = {}
        try:
            for packed, parts in self._maps.items():
                rows[packed] = packed.weight.to_dense()
                packed.weight = _nothing(packed.weight)
                for first, part in parts.items():
                    part.weight = nn.Parameter(rows[packed][first : first + part.out_features], requires_grad=False)
            yield
        finally:
            for packed in list(rows):
                for part in self._maps[packed].values():
                    part.weight = _nothing(part.weight)
                packed.weight = PackedLinear(rows.pop(packed), None).weight

    def _part(self, packed: PackedLinear, first: int, count: int) -> nn.Linear:
        part = nn.Linear(packed.in_features, count, bias=False, device="meta")
        part.weight = _nothing(packed.weight)
        if packed.bias is not None:
            part.bias = nn.Parameter(packed.bias.detach()[first : first + count], requires_grad=False)
        self._maps[packed][first] = part
        return part

    def _share_head(self, twin: Any) -> None:
        """A head that has the numbers of the embeddings reads them there, as it did before it was packed."""
        head, embeddings = twin.get_output_embeddings(), twin.get_input_embeddings().weight
        for packed, parts in self._maps.items():
            if head in parts.values() and torch.equal(packed.weight.to_dense(), embeddings):
                head.weight = embeddings
                del self._maps[packed]
                return


def _nothing(weight: torch.Tensor) -> nn.Parameter:
    """In the place of weights that are elsewhere at the moment."""
    return nn.Parameter(torch.empty(0, dtype=weight.dtype), requires_grad=False)
