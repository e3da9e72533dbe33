"""The tokenizer of a GGUF file as a ``tokenizer.json``: what transformers makes of it, with what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hsd_cli.errors import HsdError
from hsd_cli.models.gguf_header import Header

UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5  # types of tokens
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
# Ways to cut words, by the names that llama.cpp has for them. Whole words go before merges with the first, and texts
# begin with BOS, said or not; the second, which transformers does not know, is GPT-2's with each digit apart.
LLAMA_3 = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano")
DIGITS_APART = ("smollm", "starcoder", "refact", "command-r")


def save_tokenizer(header: Header, file: Path, folder: Path) -> None:
    """Raises ``HsdError`` for a tokenizer that is no BPE, and what the library stumbles over."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    known = {key.removeprefix("tokenizer.ggml."): value for key, value in header.metadata.items()}
    made = PreTrainedTokenizerFast.from_pretrained(folder, gguf_file=str(file))
    description = json.loads(made.backend_tokenizer.to_str())
    if description["model"]["type"] != "BPE":
        raise HsdError(f"{file.name!r} has a tokenizer that is no BPE; take the model in the format of transformers")
    ids = {name: known[f"{key}_token_id"] for name, key in SPECIAL.items() if f"{key}_token_id" in known}
    special = {name: known["tokens"][index] for name, index in ids.items()}
    options = special | ({"chat_template": template} if (template := known.get("tokenizer.chat_template")) else {})
    _name_tokens(description, known)
    _cut_words(description, known)
    if known["model"] == "llama":
        _spell_spaces(description, known.get("add_space_prefix", True))
        description["model"]["unk_token"] = special.get("unk_token")
    begins = known.get("add_bos_token", known["model"] == "llama" or known.get("pre") in LLAMA_3)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)),
        add_bos_token=begins and "bos_token" in special,
        **options,
    ).save_pretrained(folder)


def _name_tokens(description: dict[str, Any], known: dict[str, Any]) -> None:
    """Gives added tokens their names and ids, which the library spells in bytes where they have other characters, and
    takes away those that only fill the vocabulary up."""
    vocabulary, byte_level = description["model"]["vocab"], known["model"] == "gpt2"
    added, filling = {}, set()
    for index, (token, kind) in enumerate(zip(known["tokens"], known.get("token_type", []), strict=False)):
        if kind in (UNKNOWN, CONTROL) or (kind == USER_DEFINED and (byte_level or token in vocabulary)):
            added[token] = index
        elif kind == UNUSED and token == f"[PAD{index}]":
            filling.add(index)
    others = {token: index for token, index in vocabulary.items() if index not in filling | set(added.values())}
    description["model"]["vocab"] = others | added
    description["added_tokens"] = [
        {
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
            "id": index,
            "content": token,
            "special": known["token_type"][index] != USER_DEFINED,
        }
        for token, index in added.items()
    ]


def _cut_words(description: dict[str, Any], known: dict[str, Any]) -> None:
    if known.get("pre") in LLAMA_3:
        description["model"]["ignore_merges"] = True
    if known.get("pre") in DIGITS_APART:
        digits = {"type": "Digits", "individual_digits": True}
        steps = [digits, description["pre_tokenizer"]]
        description["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}


def _spell_spaces(description: dict[str, Any], prefixed: bool) -> None:
    """As SentencePiece and llama.cpp do: a space goes before every text, if any, and one that is there stays."""
    if (description["pre_tokenizer"] or {}).get("type") != "Metaspace":  # Gemma's and Phi-3's are made that way
        return
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    steps = [{"type": "Prepend", "prepend": "▁"}, spaces] if prefixed else [spaces]
    description["normalizer"] = {"type": "Sequence", "normalizers": steps}
    description["pre_tokenizer"] = None
    if not prefixed:
        kept = [step for step in description["decoder"]["decoders"] if step["type"] != "Strip"]
        description["decoder"]["decoders"] = kept
