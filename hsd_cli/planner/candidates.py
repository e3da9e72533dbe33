"""The drafters that need no download."""

from __future__ import annotations

import json

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hsd_cli.errors import HsdError
from hsd_cli.models.content import WEIGHTS
from hsd_cli.models.downloaded import downloaded_models, files_of
from hsd_cli.models.locate import embedded_models


def local_drafters(target: str) -> list[str]:
    """Every downloaded causal language model and the embedded ones, but not the target itself."""
    return [name for name in (*filter(_is_causal, downloaded_models()), *embedded_models()) if name != target]


def _is_causal(name: str) -> bool:
    """Whether there are weights, and they are those of the class that generates text with this kind of model."""
    try:
        files = files_of(name)
        if not any(path.suffix in WEIGHTS for path in files):
            return False
        config = json.loads(next(path for path in files if path.name == "config.json").read_bytes())
        return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config["model_type"]) in config["architectures"]
    except (HsdError, OSError, ValueError, LookupError, TypeError, StopIteration):  # no model of transformers
        return False
