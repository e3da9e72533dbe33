"""Added tokens as the library writes them, which for some is not as they are listed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer


def with_written_tokens(description: dict[str, Any]) -> dict[str, Any]:
    """The description, its ``normalized`` added tokens with the content that the normalizer makes of them.

    That is what the library looks for in a text and what it decodes them to.
    """
    added = description.get("added_tokens") or []
    if description.get("normalizer") is None or not any(map(_is_rewritten, added)):
        return description
    return description | {"added_tokens": [_written(token, description["normalizer"]) for token in added]}


def _is_rewritten(token: Mapping[str, Any]) -> bool:
    return bool(token["normalized"] and not token["special"])


def _written(token: dict[str, Any], normalizer: Mapping[str, Any]) -> dict[str, Any]:
    if not _is_rewritten(token):
        return token
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    shell = Tokenizer.from_str(json.dumps({"version": "1.0", "normalizer": normalizer, "model": empty}))
    shell.add_tokens([AddedToken(token["content"], normalized=True)])
    return token | {"content": shell.id_to_token(0) or token["content"]}
