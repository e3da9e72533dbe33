"""A GGUF file as a folder like any other model's: what it says of itself as the usual small files, and a link to it.

Made once for each file, and kept between runs. No code comes from the file, and no file beside it is read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hsd_cli import __version__
from hsd_cli.errors import HsdError
from hsd_cli.models.failures import explain_failure
from hsd_cli.models.gguf_header import Header, read_header
from hsd_cli.models.gguf_tokenizer import CONTROL, save_tokenizer
from hsd_cli.storage import cache_folder, make_private

MANY = 50_000  # tokens
LINK = "model.gguf"  # in the folder
# What may end a reply, beside the one that the metadata name: checkpoints have these in their generation configuration.
ENDS = {
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "</s>",
    "<eos>", "<｜end▁of▁sentence｜>",
}  # fmt: skip
END_KEYS = ("eos", "eot", "eom")
LEFT_OUT = {
    "head_dim": "attention.key_length",
    "sliding_window": "attention.sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
# Of rotary positions, with what each needs, as transformers and as GGUF call it.
FACTOR = {"factor": "factor"}
SCALINGS = {"linear": FACTOR, "yarn": FACTOR | {"original_max_position_embeddings": "original_context_length"}}


def gguf_in(folder: Path | str) -> Path | None:
    """The file that ``model_folder`` made ``folder`` of."""
    link = Path(folder) / LINK
    return link.resolve() if link.is_symlink() else None


def model_folder(path: Path, on_work: Callable[[], None] = lambda: None) -> Path:
    """``on_work`` is called before what takes seconds, once for each file with many tokens.

    Raises ``HsdError`` for a file that is damaged, or that transformers cannot read.
    """
    file = path.resolve()
    status = file.stat()
    state = f"{file}\n{status.st_size}\n{status.st_mtime_ns}\n{__version__}"
    folder = cache_folder() / "gguf" / hashlib.sha256(state.encode(errors="surrogateescape")).hexdigest()
    if folder.is_dir():
        return folder
    header = read_header(path)
    if len(header.metadata.get("tokenizer.ggml.tokens", ())) >= MANY:
        on_work()
    try:
        make_private(folder.parent)
        beside = Path(tempfile.mkdtemp(dir=folder.parent))
    except OSError as error:
        raise HsdError(f"no room for what {str(path)!r} says of itself ({error}); set HSD_CACHE") from error
    try:
        _describe(header, beside)
        (beside / LINK).symlink_to(file)
        os.replace(beside, folder)
    except HsdError:
        raise
    except Exception as error:  # the library stumbles over foreign and damaged metadata in many ways
        if "not supported yet" in str(error):
            kind = header.architecture
            raise HsdError(
                f"{str(path)!r} is a {kind} model, which transformers does not read from GGUF; take its own format"
            ) from error
        if not folder.is_dir():  # another process has made it
            raise explain_failure(str(path), "metadata", error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _describe(header: Header, folder: Path) -> None:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    transformers.utils.logging.set_verbosity_error()
    small = folder / "small.gguf"  # the library takes a minute for the tokens of a large vocabulary
    small.write_bytes(header.small)
    config = transformers.AutoConfig.from_pretrained(folder, gguf_file=small.name)
    small.unlink()
    if header.of_architecture("vocab_size") is None:
        config.vocab_size = len(header.metadata["tokenizer.ggml.tokens"])
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, "")]
    _complete(header, config)
    _scale_positions(header, config)
    save_tokenizer(header, folder)
    config.save_pretrained(folder)
    ends = _ends(header.metadata)
    transformers.GenerationConfig(eos_token_id=ends, bos_token_id=config.bos_token_id).save_pretrained(folder)


def _ends(metadata: dict[str, Any]) -> list[int]:
    """The ids at which texts end, the model's own first."""
    own = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in END_KEYS]
    kinds = zip(metadata["tokenizer.ggml.tokens"], metadata.get("tokenizer.ggml.token_type", []), strict=False)
    usual = [index for index, (token, kind) in enumerate(kinds) if kind == CONTROL and token in ENDS]
    return [index for index in dict.fromkeys([*own, *usual]) if index is not None]


def _complete(header: Header, config: Any) -> None:
    """What the library leaves at its own defaults, which are those of one model of the kind."""
    for name, key in LEFT_OUT.items():
        if (value := header.of_architecture(key)) and hasattr(config, name):  # a window of 0 is none
            setattr(config, name, value)
    config.pad_token_id = header.metadata.get("tokenizer.ggml.padding_token_id")


def _scale_positions(header: Header, config: Any) -> None:
    """The library leaves it out. Raises ``HsdError`` for what is not supported."""
    kind = header.of_architecture("rope.scaling.type")
    if kind in (None, "none"):
        return
    if kind not in SCALINGS:
        raise HsdError(f"its positions are scaled in a way that hsd does not know ({kind})")
    scaling = {name: header.of_architecture(f"rope.scaling.{key}") for name, key in SCALINGS[kind].items()}
    rotary = config.rope_parameters
    rotary.get("full_attention", rotary).update(scaling, rope_type=kind)
