"""What the hub's cache holds of a model: folders with one commit's files each, where files may be missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

PREFIX = "models--"  # of a model's folder in the cache; its id follows, with -- for the slash
MAIN = "main"

# In the order in which transformers looks for them; an index names the files that the weights are split over.
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
INDEX = ".index.json"
TOKENIZERS = ("tokenizer.json", "*.tiktoken")
# Files that transformers can turn into a tokenizer where there is no tokenizer.json.
CONVERTIBLE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "merges.txt", "vocab.txt")
# Where transformers looks for the names of a checkpoint's own classes, and where these are.
NAMING_CODE = ("config.json", "tokenizer_config.json")
CODE = "*.py"

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


def whole_snapshot(name: str, with_code: bool = False) -> Path | None:
    """The same, if nothing is missing that a run needs; ``with_code`` one that runs the checkpoint's own code."""
    folder = described_snapshot(name, with_code)
    return folder if folder is not None and state_of(folder) == "whole" else None


def described_snapshot(name: str, with_code: bool = False) -> Path | None:
    """The same, if configuration and tokenizer are there."""
    folder = main_snapshot(name)
    if folder is None or not (_has_config(folder) and has_tokenizer(folder)):
        return None
    return None if with_code and not all(path.is_file() for path in _code_files(folder)) else folder


def state_of(folder: Path) -> State:
    """What can be done with the files of a snapshot."""
    if not (_has_config(folder) or has_tokenizer(folder)):
        return "no model"
    weights = [folder / name for name in (*SAFETENSORS, *PICKLES) if (folder / name).is_file()]
    if not weights:
        return "partly downloaded" if any(folder.glob("*.safetensors")) else "tokenizer only"
    return "whole" if _has_config(folder) and has_tokenizer(folder) and _all_there(weights[0]) else "partly downloaded"


def has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (*SAFETENSORS, *PICKLES))


def has_tokenizer(folder: Path) -> bool:
    return any(path.is_file() for pattern in (*TOKENIZERS, *CONVERTIBLE) for path in folder.glob(pattern))


def shards(index: Path) -> list[str]:
    """The names of the files that the weights are split over. Raises ``OSError``, and ``ValueError`` for no index."""
    try:
        return sorted(set(map(str, json.loads(index.read_bytes())["weight_map"].values())))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{index.name} is no index of weights") from error


def _code_files(folder: Path) -> Iterator[Path]:
    """Those with the classes that the checkpoint names as its own, there or not."""
    for name in NAMING_CODE:
        with suppress(OSError, ValueError, AttributeError):  # nothing there, or nothing that names any
            for reference in _strings(json.loads((folder / name).read_bytes()).get("auto_map")):
                if "--" not in reference:  # in another repository
                    yield folder / f"{reference.partition('.')[0]}.py"


def _strings(value: Any) -> Iterator[str]:
    """All of them in a value of JSON."""
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(part)


def _has_config(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _all_there(weights: Path) -> bool:
    if not weights.name.endswith(INDEX):
        return True
    with suppress(OSError, ValueError):
        return all((weights.parent / name).is_file() for name in shards(weights))
    return False
