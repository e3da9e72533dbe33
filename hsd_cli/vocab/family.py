"""What kind of tokenizer a ``tokenizer.json`` describes, in the words people use."""

from __future__ import annotations

from typing import Any

from hsd_cli.vocab.token_bytes import BYTE_TOKEN, Description, flatten, token_ids


def family(description: Description) -> str:
    """For example ``byte-level BPE`` or ``SentencePiece Unigram with byte fallback``."""
    model = description["model"]
    byte_level = "ByteLevel" in {step["type"] for step in flatten(description.get("decoder"), "decoders")}
    added = {token["content"] for token in description.get("added_tokens") or []}
    written = (token for token in token_ids(description) if token not in added and not BYTE_TOKEN.fullmatch(token))
    longest = max(map(len, written), default=0)
    if longest <= 1:
        return "bytes" if byte_level or longest == 0 else "characters"
    kind = model.get("type", "unknown")
    if kind == "BPE" and byte_level:
        return "byte-level BPE"
    if _uses_metaspace(description):
        kind = f"SentencePiece {kind}"
    return f"{kind} with byte fallback" if model.get("byte_fallback") else str(kind)


def _uses_metaspace(description: Description) -> bool:
    return any(map(_is_metaspace, flatten(description.get("decoder"), "decoders")))


def _is_metaspace(step: Any) -> bool:
    return step["type"] == "Metaspace" or (step["type"] == "Replace" and step["pattern"].get("String") == "▁")
