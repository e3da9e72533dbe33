"""What the small files of two models tell other engines: names, vocabularies, and how wide the heads are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsd_cli.errors import HsdError
from hsd_cli.models.failures import code_needed
from hsd_cli.models.gguf import gguf_in
from hsd_cli.models.hub_file import hub_file
from hsd_cli.models.locate import local_folder, model_source
from hsd_cli.vocab.report import Report, compare, sample_text
from hsd_cli.vocab.source import read_vocabulary
from hsd_cli.vocab.vocabulary import Vocabulary


@dataclass(frozen=True)
class ExportedModel:
    """``name`` is what other engines call it: a folder or an id on the hub. ``width`` counts the head's tokens, padding
    included. ``own_code`` tells whether it is of a kind that the checkpoint alone has the code of."""

    name: str
    is_folder: bool
    vocabulary: Vocabulary
    width: int
    own_code: bool

    @classmethod
    def read(cls, name: str, trust_remote_code: bool) -> ExportedModel:
        """Raises ``HsdError`` for what is no model, needs code that is not trusted, or does not say how wide its head
        is."""
        folder = local_folder(name)
        if hub_file(name) is not None if folder is None else gguf_in(folder) is not None:
            raise HsdError(f"{name!r} is a GGUF file, which engines take as it is; export models in their own format")
        config = _config(name, trust_remote_code)
        own_code = _has_own_code(config)
        if own_code and not trust_remote_code:
            raise HsdError(code_needed(name))
        vocabulary = read_vocabulary(name, trust_remote_code=trust_remote_code)
        return cls(str(folder or name), folder is not None, vocabulary, _width(name, config), own_code)


@dataclass(frozen=True)
class ExportedPair:
    """``report`` has the target as ``a`` and the drafter as ``b``. With ``trust_remote_code`` engines are told to run
    the checkpoints' own code, too."""

    target: ExportedModel
    drafter: ExportedModel
    report: Report
    trust_remote_code: bool

    @classmethod
    def read(cls, target: str, drafter: str, trust_remote_code: bool = False) -> ExportedPair:
        """Reads configurations and tokenizer files, no weights. Raises ``HsdError``."""
        a, b = (ExportedModel.read(name, trust_remote_code) for name in (target, drafter))
        return cls(a, b, compare(a.vocabulary, b.vocabulary, sample_text()), trust_remote_code)

    @property
    def trusting(self) -> list[str]:
        """The flag that engines have for it, by the same name as here."""
        return ["--trust-remote-code"] if self.trust_remote_code else []

    @property
    def with_own_code(self) -> list[str]:
        """The models that need it, by role."""
        return [role for role, model in (("target", self.target), ("drafter", self.drafter)) if model.own_code]

    @property
    def widths(self) -> str:
        return f"{self.target.width} in the target and {self.drafter.width} in the drafter"


def _config(name: str, trust_remote_code: bool) -> dict[str, Any]:
    path = Path(model_source(name, trust_remote_code)) / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise HsdError(f"the configuration of {name!r} cannot be read ({error}); download it again") from error
    return config if isinstance(config, dict) else {}


def _has_own_code(config: dict[str, Any]) -> bool:
    if not config.get("auto_map"):
        return False
    from transformers import CONFIG_MAPPING

    return config.get("model_type") not in CONFIG_MAPPING


def _width(name: str, config: dict[str, Any]) -> int:
    try:
        width = config["vocab_size"] if "vocab_size" in config else config["text_config"]["vocab_size"]
    except (KeyError, TypeError) as error:
        raise HsdError(f"the configuration of {name!r} does not say how many tokens the model has") from error
    if not isinstance(width, int) or width < 1:
        raise HsdError(f"the configuration of {name!r} says that the model has {width!r} tokens")
    return width
