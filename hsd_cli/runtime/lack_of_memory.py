"""One name for what every device says in its own way when its memory is too small."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SAYINGS = re.compile("DefaultCPUAllocator: (can't allocate|not enough) memory|MPS backend out of memory")


@contextmanager
def naming_lack_of_memory() -> Iterator[None]:
    """Raises ``torch.OutOfMemoryError``, which CUDA alone has of itself, whatever the device or Python lacks it for."""
    try:
        yield
    except MemoryError as error:
        raise torch.OutOfMemoryError(str(error)) from error
    except RuntimeError as error:
        if SAYINGS.search(str(error)):
            raise torch.OutOfMemoryError(str(error)) from error
        raise
