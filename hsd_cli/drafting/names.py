"""What people call the algorithms. Apart from the registry, so that a wrong name is refused before torch is loaded."""

from __future__ import annotations

from typing import Literal, get_args

Algorithm = Literal["auto", "ar", "lookup", "sd", "slem", "slrs", "tli", "union"]
ALGORITHM_NAMES: tuple[str, ...] = get_args(Algorithm)
