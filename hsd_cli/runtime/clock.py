"""Where the time goes: exclusive seconds per phase."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch


class PhaseClock:
    """Seconds spent in named phases. A phase entered inside another one stops the outer one's clock."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    @contextmanager
    def waited_for(self, name: str, device: torch.device, *, after: str) -> Iterator[None]:
        """A phase whose end waits for ``device``, which may only then come to its beginning: what it is still busy
        with until then is the time of the phase that came before, ``after``."""
        if device.type != "cuda":
            with self.phase(name):
                yield
            return
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(device)
        before = self.seconds[name]
        begun.record(stream)
        with self.phase(name):
            yield
            ended.record(stream)
            ended.synchronize()
        late = max(0.0, self.seconds[name] - before - begun.elapsed_time(ended) / 1000)
        self.seconds[name] -= late
        self.seconds[after] += late

    def _charge(self) -> None:
        now = perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now
