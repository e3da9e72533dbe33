"""Weights of linear maps, laid out as this processor multiplies them fastest.

Which layout that is depends on the processor, the number format and the shape, so each shape is timed once per process.
On one processor float32 in oneDNN's order makes a pass over a draft about as quick as one over a token; on another,
bfloat16 in columns takes eighty times as long as in rows.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import product, takewhile
from math import inf
from time import get_clock_info, perf_counter, thread_time
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

Layout = Literal["rows", "columns", "packed"]
Map = Callable[[torch.Tensor], torch.Tensor]
SMALL = 1 << 14  # weights: of so few any layout will do
LARGE = 1 << 20  # weights: from here on columns are never fastest, and the shape makes little difference
LARGE_SHAPE = (1024, 2048)
COPIES = 6  # of a large map, multiplied one after another: a model's weights come from memory, not from a cache
ROWS = 8  # tokens that oneDNN's order is made for: a draft
TOKENS = (1, ROWS, 16)  # per pass: plain decoding, a draft, the longest draft
ROUNDS = 3
WORTH_ROUNDING = 0.8  # of float32's time, at most
SLOWER = 1.5  # than rows, at most, for any of these

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
        self.whole, self.first, self.out_features = whole, first, count

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.whole(states).narrow(-1, self.first, self.out_features)  # type: ignore[no-any-return]


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
            if type(child) is nn.Linear and type(child.weight) is nn.Parameter:
                lay_out(module, name, may_pack=name not in touched)


def lay_out(module: nn.Module, name: str, may_pack: bool = True) -> None:
    """Gives the linear map of ``module`` called ``name`` the fastest layout, if it has none yet."""
    linear: Any = getattr(module, name)
    layout = fastest_layout(linear.weight) if type(linear) is nn.Linear else None
    if layout == "packed" and may_pack:
        setattr(module, name, PackedLinear(linear.weight, linear.bias))
    elif layout == "columns":
        linear.weight = nn.Parameter(in_columns(linear.weight.data), requires_grad=False)


def fastest_layout(weight: torch.Tensor) -> Layout:
    """For passes over one token and over a draft."""
    if weight.device.type != "cpu" or weight.numel() < SMALL:
        return "rows"
    return _timed(weight.dtype, LARGE_SHAPE if weight.numel() >= LARGE else tuple(weight.shape)).layout


def one_token_dtype() -> torch.dtype:
    """The number format in which a large model reads one token at a time fastest, as drafters do."""
    half, full = _timed(torch.bfloat16, LARGE_SHAPE), _timed(torch.float32, LARGE_SHAPE)
    return torch.bfloat16 if half.one_token < WORTH_ROUNDING * full.one_token else torch.float32


def is_slower(dtype: torch.dtype) -> bool:
    """Whether a large model of ``dtype`` takes longer than one of float32 for a pass over a draft."""
    return _timed(dtype, LARGE_SHAPE).draft > _timed(torch.float32, LARGE_SHAPE).draft


class Timed(NamedTuple):
    """The fastest layout, and the seconds of its products with one token and with a draft of ``ROWS``."""

    layout: Layout
    one_token: float
    draft: float


@cache
@torch.inference_mode()
def _timed(dtype: torch.dtype, shape: tuple[int, ...]) -> Timed:
    """Layouts that are ``SLOWER`` than rows for some number of tokens are left out."""
    large = shape == LARGE_SHAPE
    weights = [torch.full(shape, 0.01, dtype=dtype) for _ in range(COPIES if large else 1)]
    maps: dict[Layout, list[Map]] = {"rows": [partial(F.linear, weight=weight) for weight in weights]}
    if not large:
        maps["columns"] = [partial(F.linear, weight=in_columns(weight)) for weight in weights]
    if has_order(dtype):
        maps["packed"] = [PackedLinear(weight, None).forward for weight in weights]
    best: dict[Layout, dict[int, float]] = {layout: {} for layout in maps}
    for tokens in TOKENS:
        states = torch.full((tokens, shape[1]), 0.01, dtype=dtype)
        for _, layout in product(range(ROUNDS), maps):  # in turns
            best[layout][tokens] = min(best[layout].get(tokens, inf), _seconds(maps[layout], states))
        maps = {layout: each for layout, each in maps.items() if best[layout][tokens] <= SLOWER * best["rows"][tokens]}
    layout = min(maps, key=lambda layout: best[layout][1] + best[layout][ROWS])
    return Timed(layout, best[layout][1], best[layout][ROWS])


def _seconds(maps: Sequence[Map], states: torch.Tensor) -> float:
    """Of one thread, by its own clock: what else the machine does matters little."""
    clock = thread_time if get_clock_info("thread_time").resolution < 1e-6 else perf_counter
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        begun = clock()
        for each in maps:
            each(states)
        return clock() - begun
    finally:
        torch.set_num_threads(threads)


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
