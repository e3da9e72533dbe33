"""Work for a GPU that is recorded once and replayed: one launch in place of hundreds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from time import perf_counter

import torch

TIMED_RUNS = 20
WARM_UP_RUNS = 2  # libraries set themselves up at the first run, which cannot be recorded
Function = Callable[..., tuple[torch.Tensor, ...]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """``replay`` does the recorded work on what is in ``inputs``, and leaves the results in ``outputs``."""

    inputs: Sequence[torch.Tensor]
    replay: Callable[[], None]
    outputs: Sequence[torch.Tensor]


# From a function of tensors, its inputs (which the recording keeps) and the source of its random numbers, if any.
Record = Callable[[Function, Sequence[torch.Tensor], torch.Generator | None], Recording]


class Graphs:
    """Runs functions by their recordings, each made when it is first needed.

    A function must be the same work each time but for what is in its inputs and in the tensors that it was made with:
    no size, branch or number may come from the host, and nothing may wait for the device.
    """

    def __init__(self, record: Record) -> None:
        self._record: Record | None = record
        self._recordings: dict[Hashable, Recording] = {}

    def run(
        self, key: Hashable, function: Function, *inputs: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, ...] | None:
        """``function(*inputs)``; inputs under one ``key`` have the same shapes. Results are the caller's own.

        ``None`` once a recording failed, which the log tells: the caller has to do without, in its own way.
        """
        if key not in self._recordings and self._record is not None:
            try:
                self._recordings[key] = self._record(function, [each.clone() for each in inputs], generator)
            except Exception as error:  # a driver, a kernel, no memory: whatever it is, there is a way without
                self._record = None
                _tell(str(error).partition("\n")[0])
        if self._record is None:
            return None
        recording = self._recordings[key]
        for place, value in zip(recording.inputs, inputs, strict=True):
            place.copy_(value, non_blocking=True)
        recording.replay()
        # Recordings share memory: the next one to run may write over these.
        return tuple(output.clone() for output in recording.outputs)

    def seconds(self, function: Function, *inputs: torch.Tensor) -> float:
        """What ``function(*inputs)`` takes by a recording, which is not kept. Raises whatever recording it raises."""
        if self._record is None:
            raise RuntimeError("nothing can be recorded")
        recording = self._record(function, inputs, None)
        return median(_seconds(recording) for _ in range(TIMED_RUNS))

    def forget(self) -> None:
        """Drops all recordings: what they were made with is not in use any more."""
        if self._recordings and torch.cuda.is_available():
            torch.cuda.synchronize()  # one may still be at work
        self._recordings.clear()


def _seconds(recording: Recording) -> float:
    begun = perf_counter()
    recording.replay()
    if recording.outputs[0].is_cuda:
        torch.cuda.synchronize(recording.outputs[0].device)
    return perf_counter() - begun


@cache  # once for each reason, not for each text
def _tell(reason: str) -> None:
    _log.warning("CUDA graphs are not used, so decoding is slower: %s", reason)


def graphs_for(device: torch.device) -> Graphs | None:
    """``None`` where a launch costs next to nothing, or nothing can be recorded."""
    return Graphs(_CudaRecorder(device)) if device.type == "cuda" else None


class _CudaRecorder:
    """Records CUDA graphs, which share one pool of memory: they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._last: torch.cuda.CUDAGraph | None = None  # keeps the pool alive, whatever is forgotten

    def __call__(
        self, function: Function, inputs: Sequence[torch.Tensor], generator: torch.Generator | None
    ) -> Recording:
        """Raises ``RuntimeError`` if the replayed work comes to another result (not where it is left to chance)."""
        graph = torch.cuda.CUDAGraph()
        pool = None if self._last is None else self._last.pool()
        if generator is not None:
            graph.register_generator_state(generator)
        with torch.cuda.device(self._stream.device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP_RUNS):
                    expected = function(*inputs)
            torch.cuda.current_stream().wait_stream(self._stream)
            # Other threads (the live display's) may do what they like meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                outputs = function(*inputs)
            graph.replay()
        if generator is None and not all(map(alike, outputs, expected)):
            raise RuntimeError("a replayed graph came to another result")
        self._last = graph
        return Recording(inputs, graph.replay, outputs)


def alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal but for rounding (which may choose another token where two are as likely)."""
    if not expected.is_floating_point():
        return True
    precision = torch.finfo(expected.dtype).eps ** 0.5
    return bool((found - expected).float().norm() <= precision * expected.float().norm())
