"""What a CUDA graph does, on a CPU: operations are recorded, with every number that is not in a tensor, and done again.

What a CUDA graph could not record is refused: waiting for a value, shapes that depend on one, numbers of the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from hsd_cli.runtime.graphs import Function, Recording

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "repeat_interleave", "bincount"}
FROM_THE_HOST = {"lift_fresh", "lift_fresh_copy"}  # `torch.tensor(...)`


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING or (name.startswith("index") and any(_is_mask(part) for part in tree_leaves(args[1:2]))):
            raise RuntimeError(f"{name} waits for the device")
        if name in FROM_THE_HOST or (name == "where" and any(part.dim() == 0 for part in args[1:])):
            raise RuntimeError(f"{name} copies a number from the host")
        arguments = args, kwargs or {}
        result = func(*args, **arguments[1])
        self.operations.append((func, arguments, result))
        return result


def _is_mask(part: Any) -> bool:
    return isinstance(part, torch.Tensor) and part.dtype == torch.bool


def record(function: Function, inputs: Sequence[torch.Tensor], generator: torch.Generator | None) -> Recording:
    with _Recorder() as recorder:
        outputs = function(*inputs)
    kept = [output.clone() for output in outputs]

    def replay() -> None:
        done_again: dict[int, torch.Tensor] = {}

        def now(tensor: torch.Tensor) -> torch.Tensor:
            return done_again.get(id(tensor), tensor)

        for func, arguments, before in recorder.operations:
            args, kwargs = tree_map_only(torch.Tensor, now, arguments)
            after = func(*args, **kwargs)
            done_again.update(zip(map(id, tree_leaves(before)), tree_leaves(after), strict=True))
        for place, output in zip(kept, outputs, strict=True):
            place.copy_(now(output))

    return Recording(inputs, replay, kept)
