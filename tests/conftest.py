"""Settings that every test shares."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

# The same examples on every machine, and no failure because a machine was slow.
settings.register_profile("hsd", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("hsd")

# Tiny tensors: threads only get in each other's way.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches the network, and none depends on the caller's terminal."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("HSD_DEBUG", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    os.environ.setdefault("COLUMNS", "100")
