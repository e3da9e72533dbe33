"""Several copies of one model that read at the same time: each a pass of its own, over a text that may be a guess."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter

import torch

from hsd_cli.errors import HsdError
from hsd_cli.runtime.device import upload
from hsd_cli.runtime.lack_of_memory import naming_lack_of_memory
from hsd_cli.runtime.loading import LoadedModel, load_model
from hsd_cli.runtime.model import LanguageModel, common_prefix
from hsd_cli.runtime.side_stream import SideStream

READ_ALONG = 64  # tokens that a copy is behind by are read in the pass that needs them, more in passes of their own

_log = logging.getLogger(__name__)


class _Copy:
    """A model, what it has read, and the thread that it reads in. Of ``ids`` the first ``agreed`` are the text's."""

    def __init__(self, model: LanguageModel, threads: int | None) -> None:
        self.model = model
        self.ids: list[int] = []
        self.agreed = 0
        setup = () if threads is None else (torch.set_num_threads, (threads,))
        self.thread = ThreadPoolExecutor(1, "target", *setup)
        self._stream = SideStream(model.device)

    # Both are for the copy's thread. What was read and the first ``agreed`` of ``ids`` are known to begin alike.

    def read(self, ids: list[int], count: int, agreed: int, device: torch.device) -> torch.Tensor:
        """Logits after each of the last ``count`` of ``ids``, ``[count, vocabulary_size]``."""
        with self._reading(ids, len(ids) - count, agreed):
            unread = ids[self.model.length : len(ids) - count]
            if len(unread) > READ_ALONG:
                self.model.prefill(unread)
            logits = self.model.run(upload(ids[self.model.length :], self.model.device))
            return logits[-count:].to(device)

    def prefill(self, ids: list[int], agreed: int, device: torch.device) -> torch.Tensor:
        """Reads all of ``ids``; logits after the last of them, ``[1, vocabulary_size]``."""
        with self._reading(ids, len(ids) - 1, agreed):
            return self.model.prefill(ids[self.model.length :]).to(device)

    @contextmanager
    def _reading(self, ids: list[int], most: int, agreed: int) -> Iterator[None]:
        """From where what was read is no longer what ``ids`` has, or from ``most`` on."""
        length = self.model.length
        agreed = min(agreed, length)
        agreed += common_prefix(self.ids[agreed:length], ids[agreed:])
        self.model.rollback(min(agreed, most))
        self.ids[self.model.length :] = ids[self.model.length :]
        try:
            with torch.inference_mode(), naming_lack_of_memory(), self._stream.work():
                yield
        except BaseException:
            self.model.rollback(0)  # a pass that ended in the middle: not all layers have read the same
            raise


@dataclass(frozen=True)
class _Pass:
    """Of ``copy``, over ``ids``: it brings the logits after each of the last ``count``, and the seconds it took."""

    copy: _Copy
    ids: list[int]
    count: int
    result: Future[tuple[torch.Tensor, float]]


class Replicas:
    """Copies of one model, at least one, which together are a ``LanguageModel``.

    ``ahead`` begins a pass over what the text may become. Whoever then reads just that by ``run`` gets its logits; all
    others are dropped when they come. So what is returned depends on the tokens that were read and on nothing else,
    and rolling back is still O(1): a copy finds out how far what it read is the text when it reads next.

    ``threads``: of the CPU, for each copy.
    """

    def __init__(self, copies: Sequence[LanguageModel], threads: int | None = None) -> None:
        first = copies[0]
        self.vocabulary_size, self.context_size = first.vocabulary_size, first.context_size
        self.device = first.device
        self.seconds = 0.0  # of the last pass that ``run`` returned
        self._copies = [_Copy(model, threads) for model in copies]
        self._passes: list[_Pass] = []
        self._text: list[int] = []

    # --- a language model ---

    @property
    def length(self) -> int:
        return len(self._text)

    def begin(self, text: list[int]) -> None:
        self.rest()
        for copy in self._copies:
            copy.ids = list(text)
            copy.model.begin(copy.ids)
            copy.agreed = copy.model.length
        self.context_size = self._copies[0].model.context_size
        self._text = text[: min(copy.model.length for copy in self._copies)]

    def prefill(self, ids: Sequence[int]) -> torch.Tensor:
        """Every copy reads ``ids``, all at the same time."""
        self.rest()
        text = [*self._text, *ids]
        work = [copy.thread.submit(copy.prefill, text, copy.agreed, self.device) for copy in self._copies]
        wait(work)
        short = [isinstance(each.exception(), torch.OutOfMemoryError) for each in work]
        if any(short[1:]) and not short[0]:
            self._do_without([copy for copy, lacks in zip(self._copies, short, strict=True) if lacks])
        logits = work[0].result()
        self._text = text
        for copy in self._copies:
            copy.agreed = len(text)
        return logits

    def _do_without(self, lacking: Sequence[_Copy]) -> None:
        for copy in lacking:
            copy.thread.shutdown()
            self._copies.remove(copy)
        _log.warning("there is no memory for so many copies of the target: %d at work", len(self._copies))

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        given: list[int] = ids.tolist()
        self.start(given)
        found = self._begun([*self._text, *given], len(given))
        assert found is not None
        self._passes.remove(found)
        logits, self.seconds = found.result.result()
        self._text += given
        # Another copy may have been faster with what comes next; what can no longer come is dropped.
        self._passes = [
            each for each in self._passes if not each.result.done() or each.ids[: len(self._text)] == self._text
        ]
        return logits[: len(given)]

    def rollback(self, length: int) -> None:
        del self._text[length:]
        for copy in self._copies:
            copy.agreed = min(copy.agreed, length)

    # --- several passes at a time ---

    def __len__(self) -> int:
        """The number of copies."""
        return len(self._copies)

    def start(self, ids: list[int]) -> Future[tuple[torch.Tensor, float]]:
        """Begins the pass that ``run`` of ``ids`` would wait for, unless it is under way."""
        text = [*self._text, *ids]
        while (found := self._begun(text, len(ids))) is None:
            if not self.ahead(text, len(ids)):
                wait(self.under_way, return_when=FIRST_COMPLETED)
        return found.result

    def ahead(self, ids: list[int], count: int) -> bool:
        """Begins a pass over all of ``ids``, for the logits after the last ``count``, if some copy is at rest.

        ``ids`` begin with the text so far.
        """
        busy = {id(each.copy) for each in self._passes if not each.result.done()}
        idle = [copy for copy in self._copies if id(copy) not in busy]
        if not idle:
            return False
        copy = max(idle, key=lambda copy: copy.agreed)
        ids = list(ids)  # the caller's own goes on to change
        work = copy.thread.submit(_timed, copy.read, ids, count, copy.agreed, self.device)
        copy.agreed = len(self._text)
        self._passes.append(_Pass(copy, ids, count, work))
        return True

    @property
    def under_way(self) -> list[Future[tuple[torch.Tensor, float]]]:
        return [each.result for each in self._passes if not each.result.done()]

    def rest(self) -> None:
        """Until no copy reads; what came of the passes is dropped."""
        wait(self.under_way)
        self._passes = []

    def close(self) -> None:
        """Ends the threads."""
        for copy in self._copies:
            copy.thread.shutdown()
        self._passes = []

    def _begun(self, ids: list[int], count: int) -> _Pass | None:
        """The pass that has the logits after each of the last ``count`` of ``ids`` first of all."""
        before = len(ids) - count
        for each in self._passes:
            if len(each.ids) - each.count == before and each.ids[: len(ids)] == ids:
                return each
        return None


def _timed(
    read: Callable[[list[int], int, int, torch.device], torch.Tensor],
    ids: list[int],
    count: int,
    agreed: int,
    device: torch.device,
) -> tuple[torch.Tensor, float]:
    begun = perf_counter()
    return read(ids, count, agreed, device), perf_counter() - begun


def replicate(loaded: LoadedModel, count: int, taken: torch.device | None) -> list[LoadedModel]:
    """``loaded``, and ``count - 1`` copies: on GPUs that are left beside its own and the one that is ``taken``, by the
    drafter; where there are none they share its weights. If memory ends there are fewer, which the log tells.
    """
    copies = [loaded]
    device = loaded.model.device
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())] if device.type == "cuda" else []
    free = [gpu for gpu in gpus if gpu not in (device, taken)]
    for place in [*free, *[device] * count][: count - 1]:
        try:
            copies.append(_on(place, loaded))
        except HsdError as error:
            _log.warning("%d of %d copies of the target are at work: %s", len(copies), count, error)
            break
    return copies


def _on(device: torch.device, loaded: LoadedModel) -> LoadedModel:
    """Not compiled: that is not for several threads. Nor do copies choose how many threads of the CPU they take."""
    if device == loaded.model.device:
        return replace(loaded, compilation=None, threads=None)
    return load_model(
        loaded.name,
        str(device),
        str(loaded.model.dtype).removeprefix("torch."),
        loaded.quantization,
        loaded.attention,
        trust_remote_code=loaded.trust_remote_code,
        compile="never",
    )
