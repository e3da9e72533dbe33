"""``torch.compile`` for what a recorded pass does beside its products: the many small kernels of a layer become a few.

A compilation serves all layers of equal shapes, at one token or at any number of them. It takes seconds, the first time
on a machine far more, and so has to be earned back: by passes of which nobody can say how many will follow.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch

from hsd_cli.runtime import dense
from hsd_cli.runtime.dense import DenseDecoder, at
from hsd_cli.runtime.graphs import Graphs, alike
from hsd_cli.storage import cache_folder, make_private, write_atomically

Compile = Literal["auto", "always", "never"]

UNDISTURBED = 32  # passes of a text before which nothing is compiled: somebody may be waiting for its beginning
# Guesses, until it was done on this machine.
COLD, WARM = 20.0, 4.0  # seconds that it takes, the first time and with what was kept of it
SAVED = 10e-6  # seconds per layer and pass: about five kernels less, of 2 µs each
CACHE = "TORCHINDUCTOR_CACHE_DIR"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """What came of an earlier compilation: seconds that a pass takes ``less``, and that it took to compile ``again``
    with what was kept of it (``None`` if it was the first)."""

    less: float
    again: float | None


class Compilation:
    """Of one model's decoder, for all of its texts. ``kind`` tells apart what is compiled apart: the model's shapes,
    its number format, the device.

    ``auto`` goes by what was seen: there will be as many passes again as there were, but of a text no more than it may
    still get. Those have to save what compiling takes.
    """

    def __init__(self, mode: Compile, kind: str = "", backend: str | Callable[..., Any] = "inductor") -> None:
        self._kind = kind
        self._backend = backend
        self._settled = mode == "never"
        self._compiled: DenseDecoder | None = None
        self._passes = 0

    def decoder(self, eager: DenseDecoder, graphs: Graphs, made: int, left: float = inf) -> DenseDecoder:
        """What the next pass is to be read with. ``made``: the passes of its text so far; ``left``: how many tokens it
        may still get, and so about how many passes. Of several texts at a time: the passes of all."""
        self._passes += 1
        if not self._settled and made >= UNDISTURBED:
            expected = self._passes - made + min(made, left)
            if expected * self._less(eager) > self._takes:
                self.settle(eager, graphs)
        return self._compiled or eager

    @torch.inference_mode()
    def settle(self, eager: DenseDecoder, graphs: Graphs) -> None:
        """Compiles ``eager``, unless that has been tried. Where it fails, or brings nothing, the log tells so, and all
        goes on without."""
        if self._settled:
            return
        self._settled = True
        try:
            _keep_kernels()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # advice on TF32, for one
                self._compiled = self._checked(eager, graphs)
        except Exception as error:  # no compiler, a compiler's own failure, no memory: there is a way without
            refuse(_reason(error))

    def _checked(self, eager: DenseDecoder, graphs: Graphs) -> DenseDecoder:
        """Raises what compiling raises, and ``RuntimeError`` if the results differ or take no less time."""
        ids = torch.arange(2, device=eager.device)
        before = graphs.seconds(partial(_pass, eager), ids[:1])  # first: where that fails, compiling brings nothing
        begun = perf_counter()
        compiled = eager.with_maps(partial(_compiled, backend=self._backend))
        for tokens in (ids[:1], ids):
            if not all(map(alike, _pass(compiled, tokens), _pass(eager, tokens))):
                raise RuntimeError("it came to another result")
        again = None if self._known is None else perf_counter() - begun
        less = before - graphs.seconds(partial(_pass, compiled), ids[:1])
        write_atomically(self._path, json.dumps(asdict(Measured(less, again))).encode())
        if less <= 0:
            raise RuntimeError("passes take no less time with it")
        return compiled

    def _less(self, eager: DenseDecoder) -> float:
        return SAVED * eager.depth if self._known is None else self._known.less

    @property
    def _takes(self) -> float:
        return COLD if self._known is None else self._known.again or WARM

    @cached_property
    def _known(self) -> Measured | None:
        try:
            data = json.loads(self._path.read_bytes())
            return Measured(float(data["less"]), None if data["again"] is None else float(data["again"]))
        except (OSError, ValueError, LookupError, TypeError):  # missing, damaged or foreign
            return None

    @cached_property
    def _path(self) -> Path:
        parts = [torch.__version__, self._kind, inspect.getsource(dense)]
        return _folder() / f"{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()}.json"


def _keep_kernels() -> None:
    """Between runs, where the user wants them or with our other files."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    folder = _folder()
    make_private(folder)  # what is in there is run
    # PyTorch sets it itself, to a folder that the system may empty.
    if os.environ.get(CACHE) in (None, default_cache_dir()):
        os.environ[CACHE] = str(folder)


def _folder() -> Path:
    return cache_folder() / "compiled"


@cache  # once for each reason, not for each model
def refuse(reason: str) -> None:
    """Tells why nothing is compiled."""
    _log.warning("torch.compile is not used: %s", reason)


def _reason(error: BaseException) -> str:
    """In one line; compilers wrap what went wrong."""
    while (inner := getattr(error, "inner_exception", None)) is not None:
        error = inner
    return str(error).partition("\n")[0] or type(error).__name__


def _compiled(function: Callable[..., Any], backend: str | Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend=backend)

    def call(layer: object, *tensors: Any) -> Any:
        for each in torch.utils._pytree.tree_leaves(tensors):
            if isinstance(each, torch.Tensor) and len(each) > 1:
                torch._dynamo.maybe_mark_dynamic(each, 0)  # tokens: all other sizes are the model's
        return compiled(layer, *tensors)

    return call


def _pass(decoder: DenseDecoder, ids: torch.Tensor) -> tuple[torch.Tensor]:
    """What the last layer makes of ``ids``, which see nothing but each other."""
    angles = at(decoder.angles(len(ids)), lambda table: table.index_select(0, ids))

    def attend(number: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return decoder.attend_as_rows(query[None], key.transpose(0, 1)[None], value.transpose(0, 1)[None], None)

    return (decoder.states(ids, angles, attend),)
