"""Several processes, started by torchrun, that keep step: the first one says what is done next, the others do it too.

Nothing is decided twice. The text, the drafts, the random numbers, the clock that `auto` goes by, stop strings, memory
and interrupts are the first process's alone, so that the processes cannot come to different conclusions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from enum import IntEnum
from functools import cache

import torch
from torch import distributed

from hsd_cli.errors import HsdError, UsageError

WAITING = timedelta(days=7)  # for the first process to say something: it may be reading a prompt that is being typed
WORKING = timedelta(minutes=10)  # for the others to get as far as this one
NUMBERS = 4  # of one message


class Step(IntEnum):
    """What the first process asks the others to do."""

    END = 0
    LOAD = 1
    BEGIN = 2  # with a new cache, of a capacity
    READ = 3  # from a position on, so many tokens, and keep the logits of so many


class Ranks:
    """The processes. Raises ``UsageError`` if torchrun has not started them, ``HsdError`` if they do not meet."""

    def __init__(self) -> None:
        if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys():
            raise UsageError(
                "--tensor-parallel is for several processes: torchrun --standalone --nproc-per-node 2 -m hsd_cli "
                "generate --tensor-parallel ..."
            )
        local = int(os.environ["LOCAL_RANK"])
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            if local >= torch.cuda.device_count():
                raise UsageError(
                    f"torchrun started more processes than the {torch.cuda.device_count()} GPUs of this machine; "
                    "give --nproc-per-node at most that"
                )
            self.device = torch.device("cuda", local)
            torch.cuda.set_device(self.device)
        try:
            if self.device.type == "cuda":
                distributed.init_process_group("nccl", timeout=WORKING, device_id=self.device)
            else:
                distributed.init_process_group("gloo", timeout=WORKING)
            self._messages = distributed.new_group(backend="gloo", timeout=WAITING)
        except (RuntimeError, ValueError) as error:
            raise HsdError(f"the processes cannot reach each other ({str(error).splitlines()[0]})") from error
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.reader: object = None  # what leads the others' newest cache
        self._in_step = False
        self._broken = False

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @contextmanager
    def step(self, step: Step, *numbers: int) -> Iterator[bool]:
        """What the block does, the other processes do meanwhile. It gets whether they were told: within another step
        they know already.

        A block that fails leaves them in the middle of it: then nothing can be done together any more.
        Raises ``HsdError`` for that, and if they are gone.
        """
        if self._in_step:
            yield False
            return
        if self._broken:
            raise HsdError("the processes of --tensor-parallel are out of step; start again")
        self._in_step = self._broken = True
        try:
            self._tell(step, *numbers)
            yield True
            self._broken = False
        except torch.OutOfMemoryError as error:  # others may have had enough
            raise HsdError(
                f"{self.device} ran out of memory; try a shorter text, --dtype bfloat16 or more processes"
            ) from error
        except RuntimeError as error:
            if about_others(error):
                raise HsdError("another process of --tensor-parallel has ended, or does not answer") from error
            raise
        finally:
            self._in_step = False

    def hear(self) -> tuple[Step, list[int]]:
        """What the first process has said; ``END`` if it is gone."""
        message = torch.zeros(NUMBERS, dtype=torch.int64)
        try:
            distributed.broadcast(message, 0, group=self._messages)
        except RuntimeError:
            return Step.END, []
        step, *numbers = message.tolist()
        return Step(step), numbers

    def share(self, ids: torch.Tensor) -> torch.Tensor:
        """``ids`` (int64 ``[k]``, on this process's device) as the first process has them."""
        distributed.broadcast(ids, 0)
        return ids

    def agree(self, failure: str | None) -> None:
        """Waits for all. Raises ``HsdError`` if any has failed."""
        failures: list[str | None] = [None] * self.size
        distributed.all_gather_object(failures, failure, group=self._messages)
        for rank, reason in enumerate(failures):
            if reason is not None:
                raise HsdError(reason if rank == 0 else f"process {rank}: {reason}")

    def close(self) -> None:
        """Lets the others go, as far as they can be reached."""
        if self._broken:
            return
        with suppress(RuntimeError):
            if self.leads:
                self._tell(Step.END)
            distributed.destroy_process_group()

    def _tell(self, step: Step, *numbers: int) -> None:
        message = torch.tensor([step, *numbers, *[0] * (NUMBERS - 1 - len(numbers))], dtype=torch.int64)
        distributed.broadcast(message, 0, group=self._messages)


@cache
def ranks() -> Ranks:
    """The processes, of which this is one."""
    return Ranks()


def about_others(error: RuntimeError) -> bool:
    """Whether another process is gone or does not answer."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()
