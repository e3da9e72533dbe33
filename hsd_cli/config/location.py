"""Where the configuration file is, whether it exists or not."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_config_path


def config_path() -> Path:
    """``HSD_CONFIG``, or the platform's place for such files."""
    chosen = os.environ.get("HSD_CONFIG")
    return Path(chosen).expanduser() if chosen else user_config_path("hsd", appauthor=False) / "config.toml"
