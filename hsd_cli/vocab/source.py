"""Reading a vocabulary from a folder, a file or the hub: tokenizer files only, never weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hsd_cli.errors import HsdError
from hsd_cli.models.failures import needs_code
from hsd_cli.models.gguf import model_folder
from hsd_cli.models.gguf_header import is_gguf
from hsd_cli.models.hub_file import hub_file
from hsd_cli.models.locate import embedded_folder, weights_source
from hsd_cli.models.pull import Pull
from hsd_cli.models.snapshots import CONVERTIBLE, MAIN, described_snapshot
from hsd_cli.vocab.loading import description_of, load_tokenizer, read_json
from hsd_cli.vocab.tiktoken import byte_level_description, is_rank_file
from hsd_cli.vocab.vocabulary import Vocabulary

CONFIGURATION = ("generation_config.json", "config.json", "tokenizer_config.json")
# What usually ends a text, for a lone file that does not say it.
USUAL_EOS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<｜end▁of▁sentence｜>")


def read_vocabulary(source: str, revision: str | None = None, trust_remote_code: bool = False) -> Vocabulary:
    """The vocabulary of an embedded model, a folder, a ``tokenizer.json`` or tiktoken file, or a model on the hub."""
    path = embedded_folder(source) or Path(source).expanduser()
    if is_gguf(path):
        path = model_folder(path)
    elif not path.exists():
        path = _download(source, revision, trust_remote_code)
    try:
        if path.is_file():
            folder = path.parent if path.name == "tokenizer.json" else None
            return _vocabulary(_read_file(path), folder)
        return _vocabulary(_read_folder(path, trust_remote_code), path)
    except HsdError:
        raise
    except Exception as error:  # a file from anywhere can be wrong in any way
        if (refusal := needs_code(source, error)) is not None:
            raise HsdError(refusal) from error
        raise HsdError(f"cannot read a tokenizer from {source!r} ({error!r}); give a tokenizer.json file") from error


def _download(source: str, revision: str | None, trust_remote_code: bool) -> Path:
    if hub_file(source) is not None:
        return Path(weights_source(source))
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or source.endswith((".json", ".tiktoken")):
        raise HsdError(f"no file or folder {source!r}; give a folder, a tokenizer.json file or an id on the hub")
    downloaded = described_snapshot(source, trust_remote_code) if revision is None else None
    if downloaded is not None:
        return downloaded
    return Pull.planned(source, revision or MAIN, tokenizer_only=True, trust_remote_code=trust_remote_code).run()


def _read_folder(folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    if (folder / "tokenizer.json").is_file():
        description = _read_file(folder / "tokenizer.json")
        return _convert(folder, trust_remote_code) if _asks_for_more(folder, description) else description
    for path in [*sorted(folder.glob("*.tiktoken")), folder / "tokenizer.model"]:
        if path.is_file() and is_rank_file(path):
            return _read_file(path)
    if any((folder / name).is_file() for name in CONVERTIBLE):
        return _convert(folder, trust_remote_code)
    raise HsdError(f"no tokenizer files in {str(folder)!r}; give a folder with a tokenizer.json, or the file itself")


def _read_file(path: Path) -> dict[str, Any]:
    if is_rank_file(path):
        return byte_level_description(path)
    return json.loads(path.read_bytes())  # type: ignore[no-any-return]


def _convert(folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    """What transformers makes of a tokenizer in an older format, or in more than one file."""
    tokenizer = load_tokenizer(folder, trust_remote_code)
    if not hasattr(tokenizer, "backend_tokenizer"):  # it is a program
        raise HsdError(f"the tokenizer of {str(folder)!r} has no tokenizer.json and cannot be converted to one")
    return description_of(tokenizer)


def _asks_for_more(folder: Path, description: dict[str, Any]) -> bool:
    """Whether files beside ``tokenizer.json`` have added tokens that it does not have."""
    known = {token["content"] for token in description.get("added_tokens") or []}
    config = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    extra = [config.get(name) or [] for name in ("additional_special_tokens", "extra_special_tokens")]
    named = [value for name, value in config.items() if name.endswith("_token") and isinstance(value, (str, dict))]
    tokens = [*named, *(config.get("added_tokens_decoder") or {}).values()]
    for more in extra:
        tokens += more.values() if isinstance(more, dict) else more
    contents = {token["content"] if isinstance(token, dict) else token for token in tokens}
    contents |= set(read_json(folder / "added_tokens.json"))
    return not contents <= known


def _vocabulary(description: dict[str, Any], folder: Path | None) -> Vocabulary:
    vocabulary = Vocabulary(description)
    ids = {token["content"]: token["id"] for token in description.get("added_tokens") or []}
    vocabulary.encode(b" ")  # builds the encoder: what is wrong with the merges must show here
    vocabulary.eos_ids = tuple(eos for eos in _eos_ids(ids, folder) if 0 <= eos < len(vocabulary))
    return vocabulary


def _eos_ids(ids: dict[str, int], folder: Path | None) -> list[int]:
    """The model's own ids if its configuration has any, else the tokenizer's token, else a token with a usual name."""
    names: tuple[str, ...] = USUAL_EOS
    if folder is not None:
        generation, model, tokenizer = (read_json(folder / name) for name in CONFIGURATION)
        for settings in (generation, model, model.get("text_config") or {}):
            eos = settings.get("eos_token_id")
            if eos is not None:
                return list(eos) if isinstance(eos, list) else [eos]
        token = tokenizer.get("eos_token")
        name = token["content"] if isinstance(token, dict) else token
        names = (name,) if name else names
    return [ids[name] for name in names if name in ids][:1]
