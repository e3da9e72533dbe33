"""What kind of tokenizer a ``tokenizer.json`` describes, in the words people use."""

from __future__ import annotations

from itertools import chain

from hsd_cli.vocab.token_bytes import BYTE_TOKEN, Description, flatten, token_ids


def family(description: Description) -> str:
    """For example ``byte-level BPE`` or ``SentencePiece Unigram with byte fallback``."""
    model = description["model"]
    steps = list(flatten(description.get("decoder"), "decoders"))
    byte_level = any(step["type"] == "ByteLevel" for step in steps)
    added = {token["content"] for token in description.get("added_tokens") or []}
    written = (token for token in token_ids(description) if token not in added and not BYTE_TOKEN.fullmatch(token))
    first = next(written, "")
    if not any(len(token) > 1 for token in chain([first], written)):
        return "bytes" if byte_level or not first else "characters"
    kind = str(model.get("type", "unknown"))
    if byte_level:
        return f"byte-level {kind}"
    if any(map(_writes_spaces, steps)):
        kind = f"SentencePiece {kind}"
    return f"{kind} with byte fallback" if model.get("byte_fallback") else kind


def _writes_spaces(step: Description) -> bool:
    """Whether a decoder step turns SentencePiece's ``▁`` into a space."""
    return bool(step["type"] == "Metaspace" or (step["type"] == "Replace" and step["pattern"].get("String") == "▁"))
