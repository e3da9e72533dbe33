"""Tiktoken's rank files: a line per token, its bytes in base64 and its rank, which is also its id."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path
from typing import Any

from hsd_cli.vocab.token_bytes import byte_alphabet

RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+")
# How GPT-4's tokenizer cuts text into words. Rank files do not carry their own pattern, and most are variants of this.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def is_rank_file(path: Path) -> bool:
    """Whether the first line of a file is a token and its rank."""
    with path.open("rb") as file:
        return RANK_LINE.fullmatch(file.readline(1000).strip()) is not None


def byte_level_description(path: Path) -> dict[str, Any]:
    """The ranks as the ``tokenizer.json`` of a byte-level BPE. Special tokens are not in a rank file."""
    ranks = {b64decode(token): int(rank) for token, rank in map(bytes.split, path.read_bytes().splitlines())}
    character = {byte: character for character, byte in byte_alphabet().items()}
    written = {token: "".join(map(character.__getitem__, token)) for token in ranks}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    words = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, byte_level]},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "ignore_merges": True,
            "vocab": {written[token]: rank for token, rank in ranks.items()},
            "merges": [[written[left], written[right]] for left, right in _merges(ranks)],
        },
    }


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every way to put a token together from two others: tiktoken merges whichever pair has the lowest rank."""
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        splits = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        pairs = [(left, right) for left, right in splits if left in ranks and right in ranks]
        merges += sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return merges
