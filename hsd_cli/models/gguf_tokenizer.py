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
DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
GPT_2 = (
    "gpt-2", "phi-2", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code", "roberta-bpe",
    "gigachat", "default", "a.x-4.0", "mellum", "modern-bert", "exaone4", "mpt", "olmo", "jais", "trillion",
    "granite-docling",
)  # fmt: skip
UNKNOWN_WAY = "unknown_way_to_cut_words"  # in the tokenizer's configuration: what the file calls it


def save_tokenizer(header: Header, folder: Path) -> None:
    """Raises ``HsdError`` for a tokenizer that is no BPE, and what the library stumbles over."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import gemma_tokenizer, select_tokenizer_builder

    known = {key.removeprefix("tokenizer.ggml."): value for key, value in header.metadata.items()}
    if known["model"] == "t5":
        raise HsdError("its tokenizer is no BPE; take the model in the format of transformers")
    of_gemma = select_tokenizer_builder(header.architecture, known["model"]) is gemma_tokenizer
    description = _parts(header.architecture, known)
    vocabulary = _vocabulary(known, of_gemma)
    description["model"] |= {"vocab": vocabulary, "merges": _merges(known, vocabulary, by_place=of_gemma)}
    ids = {name: known[f"{key}_token_id"] for name, key in SPECIAL.items() if f"{key}_token_id" in known}
    special = {name: known["tokens"][index] for name, index in ids.items()}
    options = special | ({"chat_template": template} if (template := known.get("tokenizer.chat_template")) else {})
    _name_tokens(description, known)
    _cut_words(description, known)
    if known["model"] == "gpt2" and known.get("pre") not in _known_ways():
        options[UNKNOWN_WAY] = known.get("pre", "missing")
    if known["model"] == "llama":
        _spell_spaces(description, known.get("add_space_prefix", True))
        description["model"]["unk_token"] = special.get("unk_token")
    begins = known.get("add_bos_token", known["model"] == "llama" or known.get("pre") in LLAMA_3)
    _save(description, options, begins and "bos_token" in special, folder)


def _parts(architecture: str, known: dict[str, Any]) -> dict[str, Any]:
    """What the library makes of such files, with no token in it: its way with a vocabulary takes a minute."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

    lists: dict[str, list[Any]] = {"tokens": [], "scores": [], "token_type": [], "merges": []}
    ways = {"tokenizer_type": known["model"], "pre_tokenizer_type": known.get("pre")}
    made, _ = convert_gguf_tokenizer(architecture, lists | ways)
    return json.loads(made.to_str())  # type: ignore[no-any-return]


def _known_ways() -> set[str]:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    return {*GGUF_PRE_TOKENIZER_SPLITS, *DIGITS_APART, *GPT_2}


def _vocabulary(known: dict[str, Any], of_gemma: bool) -> dict[str, int]:
    """Spelled as the library's models spell tokens: in the byte alphabet, or with Gemma's runs of spaces as ``▁``."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    if known["model"] == "gpt2":
        spelling = bytes_to_unicode()
        alphabet = set(spelling.values())
        return {
            token if alphabet.issuperset(token) else "".join(map(spelling.__getitem__, token.encode())): index
            for index, token in enumerate(known["tokens"])
        }
    tokens = known["tokens"]
    spelled = (token.replace(" ", "▁") if of_gemma and not token.strip(" ") else token for token in tokens)
    return {token: index for index, token in enumerate(spelled)}


def _merges(known: dict[str, Any], vocabulary: dict[str, int], by_place: bool) -> list[list[str]]:
    """The file's, or every way to put a token together from two others, the best token first: by its score, or by its
    place in the vocabulary. Raises ``ValueError`` for merges of tokens that are not there."""
    if "merges" in known:
        merges = [merge.split(" ") for merge in known["merges"]]
        if not all(left in vocabulary and right in vocabulary and left + right in vocabulary for left, right in merges):
            raise ValueError("merges of tokens that are not in the vocabulary")
        return merges
    best_first = list(vocabulary)
    if not by_place:
        best_first.sort(key=lambda token: known["scores"][vocabulary[token]], reverse=True)
    merges = []
    for token in best_first:
        cuts = [(token[:cut], token[cut:]) for cut in range(len(token) - 1, 0, -1)]  # long beginnings first
        merges += [[left, right] for left, right in cuts if left in vocabulary and right in vocabulary]
    return merges


def _save(description: dict[str, Any], options: dict[str, str], begins: bool, folder: Path) -> None:
    """By the library, but for the vocabulary, which it would copy several times."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    named = set(options.values())
    vocabulary = {token: index for token, index in description["model"]["vocab"].items() if token in named}
    added = [token for token in description["added_tokens"] if token["content"] in named]
    little = description | {"model": description["model"] | {"vocab": vocabulary, "merges": []}, "added_tokens": added}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(little)), add_bos_token=begins, **options
    ).save_pretrained(folder)
    file = folder / "tokenizer.json"
    description["post_processor"] = json.loads(file.read_bytes())["post_processor"]
    file.write_text(json.dumps(description, ensure_ascii=False), "utf-8")


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
    renamed = filling | set(added.values())
    others = {token: index for token, index in vocabulary.items() if index not in renamed}
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
