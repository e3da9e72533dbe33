"""Settings that every test shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The same examples on every machine, and no failure because a machine was slow.
settings.register_profile("hsd", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("hsd")

# Tiny tensors: threads only get in each other's way.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, _cache: Path) -> None:
    """No test reaches the network, none depends on the caller's terminal, none writes into the caller's cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HSD_CACHE", str(_cache))
    for name in ("HSD_DEBUG", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    os.environ.setdefault("COLUMNS", "100")
