"""Weights of linear maps in the order in which a CPU multiplies them fastest.

If they lie in rows, as they are loaded, a pass over a handful of tokens takes at least twice as long as one over a
single token. In oneDNN's own order both take about the same, which is what makes drafts cheap to verify. Small maps,
for which that library takes longer to call than to multiply, are fastest in columns.
"""

from __future__ import annotations

import inspect
import re
from itertools import takewhile
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

LARGE = 1 << 20  # weights
ROWS = 8  # tokens that the order is made for: a draft

_mkldnn: Any = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """``nn.Linear`` for inference, in oneDNN's order. ``weight.to_dense()`` has the numbers, ``[out, in]``."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(_mkldnn._reorder_linear_weight(weight.detach(), ROWS), requires_grad=False)
        self.bias = bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return _mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")  # type: ignore[no-any-return]


class PackedPart(nn.Module):
    """Some of the outputs of a map that does what several did. It computes them all: for a look now and then."""

    def __init__(self, whole: PackedLinear, first: int, count: int) -> None:
        super().__init__()
        self.whole, self._first, self.out_features = whole, first, count

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.whole(states).narrow(-1, self._first, self.out_features)  # type: ignore[no-any-return]


def pack(model: nn.Module) -> None:
    """Lays the linear maps of ``model`` (on a CPU) out anew, one after another, so that little is in memory twice.

    A head that shares its weights with the embeddings gets a copy. Quantized weights stay as they are, and so do the
    maps whose numbers the model's own code works with (Mamba's steps, for one): all where that code cannot be read.
    """
    try:
        touched = {name for kind in {type(module) for module in model.modules()} for name in _touched_by(kind)}
    except OSError:  # no source
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if (
                type(child) is not nn.Linear
                or type(child.weight) is not nn.Parameter
                or child.weight.device.type != "cpu"
            ):
                continue
            if child.weight.numel() >= LARGE and name not in touched and has_order(child.weight.dtype):
                setattr(module, name, PackedLinear(child.weight, child.bias))
            elif child.weight.numel() < LARGE:
                child.weight = nn.Parameter(in_columns(child.weight.data), requires_grad=False)


def _touched_by(kind: type[nn.Module]) -> frozenset[str]:
    """The names of parts of which code of ``kind`` takes the ``weight``, where it could have called them."""
    own = takewhile(lambda base: base not in (nn.Module, PreTrainedModel), kind.__mro__)
    functions = [
        member
        for base in own
        for name, member in vars(base).items()
        if inspect.isfunction(member) and name != "_init_weights"
    ]
    return frozenset(re.findall(r"\.(\w+)\.weight\b", "".join(map(inspect.getsource, functions))))


def in_columns(weight: torch.Tensor) -> torch.Tensor:
    """The same numbers, of a matrix."""
    return weight.t().contiguous().t()


def has_order(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and has fast products for ``dtype``."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(_mkldnn._is_mkldnn_bf16_supported()))
