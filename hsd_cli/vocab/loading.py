"""A checkpoint's tokenizer as its own files describe it, whichever class of the library they name."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsd_cli.errors import HsdError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLASS_DEFAULTS = ("bos_token", "eos_token")  # those that chat templates write


def load_tokenizer(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """With a ``tokenizer.json``: its normalizer, pre-tokenizer, model, post-processor and decoder.

    Most of the library's classes put others in their place. Special tokens, added tokens and the template are those
    that the files beside it ask for, by the library's rules; by these `add_bos_token` has no effect beside such a file.
    Without one, or with code of the checkpoint that the user trusts, what the library makes of it.

    Raises whatever the library raises.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    config = read_json(folder / "tokenizer_config.json")
    if (trust_remote_code and "auto_map" in config) or not (folder / "tokenizer.json").is_file():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    else:
        if "auto_map" in config:
            transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)  # refuses what needs the code
        tokenizer = transformers.TokenizersBackend.from_pretrained(folder)
        _name_as_the_class_does(tokenizer, folder, config)
    model: Any = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if getattr(model, "dropout", None) is not None:
        model.dropout = None  # it is for training: a text would be cut otherwise each time
    template = folder / "chat_template.json"  # where older checkpoints of models that see images have it
    if not tokenizer.chat_template and template.is_file():
        tokenizer.chat_template = read_json(template)["chat_template"]
    return tokenizer


def description_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The ``tokenizer.json`` of a loaded tokenizer, with the added tokens that other files ask for.

    Raises ``HsdError`` where ids have several names and no file says which is the first.
    """
    backend = tokenizer.backend_tokenizer
    description: dict[str, Any] = json.loads(backend.to_str())
    if len(description["model"]["vocab"]) < backend.get_vocab_size(with_added_tokens=False):
        file = Path(tokenizer.name_or_path) / "tokenizer.json"  # of several names, the library keeps one by chance
        if not file.is_file():
            raise HsdError(
                f"the tokenizer of {tokenizer.name_or_path!r} gives one id several names; mend its vocabulary"
            )
        description["model"] = read_json(file)["model"]
    return description


def read_json(path: Path) -> dict[str, Any]:
    """What the file holds; nothing if it is not there."""
    return json.loads(path.read_bytes()) if path.is_file() else {}


def _name_as_the_class_does(tokenizer: PreTrainedTokenizerBase, folder: Path, config: dict[str, Any]) -> None:
    """What no file says the beginning and the end of a text are called, the class that the files name says."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    missing = [name for name in CLASS_DEFAULTS if name not in config and getattr(tokenizer, name) is None]
    model = read_json(folder / "config.json") if missing else {}
    named = config.get("tokenizer_class") or model.get("tokenizer_class")
    named = named or TOKENIZER_MAPPING_NAMES.get(model.get("model_type", ""))
    if not missing or named is None or (known := tokenizer_class_from_name(named)) is None:
        return
    defaults = signature(known.__init__).parameters
    for name in missing:
        token = defaults[name].default if name in defaults else None
        if isinstance(token, str) and token in tokenizer.get_vocab():
            setattr(tokenizer, name, token)
