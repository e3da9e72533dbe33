"""What the small files of two models tell other engines: names, vocabularies, and how wide the heads are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hsd_cli.errors import HsdError
from hsd_cli.models.gguf import gguf_in
from hsd_cli.models.locate import local_folder, model_source
from hsd_cli.vocab.report import Report, compare, sample_text
from hsd_cli.vocab.source import read_vocabulary
from hsd_cli.vocab.vocabulary import Vocabulary


@dataclass(frozen=True)
class ExportedModel:
    """``name`` is what other engines call it: a folder or an id on the hub. ``width`` counts the head's tokens, padding
    included."""

    name: str
    is_folder: bool
    vocabulary: Vocabulary
    width: int

    @classmethod
    def read(cls, name: str) -> ExportedModel:
        """Raises ``HsdError`` for what is no model, or does not say how wide its head is."""
        folder = local_folder(name)
        if folder is not None and gguf_in(folder) is not None:
            raise HsdError(f"{name!r} is a GGUF file, which engines take as it is; export models in their own format")
        return cls(str(folder or name), folder is not None, read_vocabulary(name), _width(name))


@dataclass(frozen=True)
class ExportedPair:
    """``report`` has the target as ``a`` and the drafter as ``b``."""

    target: ExportedModel
    drafter: ExportedModel
    report: Report

    @classmethod
    def read(cls, target: str, drafter: str) -> ExportedPair:
        """Reads configurations and tokenizer files, no weights. Raises ``HsdError``."""
        a, b = ExportedModel.read(target), ExportedModel.read(drafter)
        return cls(a, b, compare(a.vocabulary, b.vocabulary, sample_text()))

    @property
    def widths(self) -> str:
        return f"{self.target.width} in the target and {self.drafter.width} in the drafter"


def _width(name: str) -> int:
    path = Path(model_source(name)) / "config.json"
    try:
        config = json.loads(path.read_bytes())
        width = config["vocab_size"] if "vocab_size" in config else config["text_config"]["vocab_size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HsdError(f"the configuration of {name!r} does not say how many tokens the model has") from error
    if not isinstance(width, int) or width < 1:
        raise HsdError(f"the configuration of {name!r} says that the model has {width!r} tokens")
    return width
