"""Settings that every test shares, and models that many do."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from hsd_cli.runtime.graphs import Recording

# The same examples on every machine, and no failure because a machine was slow.
settings.register_profile("hsd", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("hsd")


@pytest.fixture(scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, _cache: Path) -> None:
    """No test reaches the network, none depends on the caller's terminal, none reads or writes the caller's files."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in list(os.environ):
        if name.startswith("HSD_") or name in ("FORCE_COLOR", "NO_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HSD_CACHE", str(_cache))
    monkeypatch.setenv("HSD_CONFIG", str(_cache / "config.toml"))
    monkeypatch.setenv("HSD_HISTORY", str(_cache / "history"))
    os.environ.setdefault("COLUMNS", "100")
    logging.getLogger("hsd_cli").setLevel(logging.NOTSET)  # whatever `--quiet` left


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The CPU records, too: the names of the functions that it has recorded."""
    from hsd_cli.runtime.graphs import Graphs
    from tests.recording import record

    made: list[str] = []

    def noted(function: Any, inputs: Sequence[torch.Tensor], generator: torch.Generator | None) -> Recording:
        made.append(getattr(function, "func", function).__name__)
        return record(function, inputs, generator)

    for user in ("hsd_cli.runtime.model", "hsd_cli.runtime.joint", "hsd_cli.drafting.registry"):
        monkeypatch.setattr(f"{user}.graphs_for", lambda device: Graphs(noted))
    return made


# Three models that many files ask for. Most others can do without transformers, which takes seconds to import.


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Continues the alphabet, whatever the settings: `a` with `bcd...`."""
    from tests.cli import checkpoint

    return checkpoint(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Continues the alphabet in tokens of two letters."""
    from tests.cli import PAIRS, checkpoint

    return checkpoint(tmp_path_factory.mktemp("pairs"), PAIRS)


@pytest.fixture(scope="session")
def unsure(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Knows the alphabet badly: where it is sampled from, every seed gives another text."""
    from tests.cli import checkpoint

    return checkpoint(tmp_path_factory.mktemp("unsure"), sharpness=3)
