"""What the hub's cache holds of a model: folders with one commit's files each, where files may be missing."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Literal

PREFIX = "models--"  # of a model's folder in the cache; its id follows, with -- for the slash
MAIN = "main"

# In the order in which transformers looks for them; an index names the files that the weights are split over.
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
INDEX = ".index.json"
TOKENIZERS = ("tokenizer.json", "*.tiktoken")
# Files that transformers can turn into a tokenizer where there is no tokenizer.json.
CONVERTIBLE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "merges.txt", "vocab.txt")

State = Literal["whole", "tokenizer only", "partly downloaded", "no model"]


def repository_folder(name: str) -> Path:
    """Where the cache keeps the model, if it is there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"{PREFIX}{name.replace('/', '--')}"


def main_snapshot(name: str) -> Path | None:
    """The folder of the commit that was downloaded last without another revision being asked for."""
    repository = repository_folder(name)
    with suppress(OSError, ValueError):  # nothing there, or no text
        folder = repository / "snapshots" / (repository / "refs" / MAIN).read_text("ascii").strip()
        return folder if folder.is_dir() else None
    return None


def whole_snapshot(name: str) -> Path | None:
    """The same, if nothing is missing that a run needs."""
    folder = main_snapshot(name)
    return folder if folder is not None and state_of(folder) == "whole" else None


def described_snapshot(name: str) -> Path | None:
    """The same, if configuration and tokenizer are there."""
    folder = main_snapshot(name)
    return folder if folder is not None and _has_config(folder) and has_tokenizer(folder) else None


def state_of(folder: Path) -> State:
    """What can be done with the files of a snapshot."""
    if not (_has_config(folder) or has_tokenizer(folder)):
        return "no model"
    weights = [folder / name for name in (*SAFETENSORS, *PICKLES) if (folder / name).is_file()]
    if not weights:
        return "partly downloaded" if any(folder.glob("*.safetensors")) else "tokenizer only"
    return "whole" if _has_config(folder) and has_tokenizer(folder) and _all_there(weights[0]) else "partly downloaded"


def has_tokenizer(folder: Path) -> bool:
    return any(path.is_file() for pattern in (*TOKENIZERS, *CONVERTIBLE) for path in folder.glob(pattern))


def shards(index: Path) -> list[str]:
    """The names of the files that the weights are split over. Raises ``OSError``, and ``ValueError`` for no index."""
    try:
        return sorted(set(map(str, json.loads(index.read_bytes())["weight_map"].values())))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{index.name} is no index of weights") from error


def _has_config(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _all_there(weights: Path) -> bool:
    if not weights.name.endswith(INDEX):
        return True
    with suppress(OSError, ValueError):
        return all((weights.parent / name).is_file() for name in shards(weights))
    return False
