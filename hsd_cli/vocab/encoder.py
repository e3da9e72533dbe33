"""The tokenizer that reads text in the middle of a text, made from one that reads whole texts."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE

from hsd_cli.vocab.token_bytes import BYTE_TOKEN, flatten

NEVER = -1e6  # a Unigram score that loses against every other segmentation
BPE_OPTIONS = (
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)
ADDED_TOKEN_OPTIONS = ("single_word", "lstrip", "rstrip", "normalized")


def continuation_encoder(description: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer without BOS, dummy prefix, trimming and chance, for which special tokens' names are plain text."""
    # Special tokens are left out rather than disabled: the library renumbers added tokens where ids have gaps.
    added = [token for token in description.get("added_tokens") or [] if not token["special"]]
    tokenizer = Tokenizer(_model(description, added))
    # The small components go through a second tokenizer, since only whole tokenizers can be read from JSON.
    shell = Tokenizer.from_str(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "normalizer": _for_the_middle(description.get("normalizer"), "normalizers"),
                "pre_tokenizer": _for_the_middle(description.get("pre_tokenizer"), "pretokenizers"),
                "model": {"type": "BPE", "vocab": {}, "merges": []},
            }
        )
    )
    if shell.normalizer is not None:
        tokenizer.normalizer = shell.normalizer
    if shell.pre_tokenizer is not None:
        tokenizer.pre_tokenizer = shell.pre_tokenizer
    tokenizer.add_tokens(
        [AddedToken(token["content"], **{key: token[key] for key in ADDED_TOKEN_OPTIONS}) for token in added]
    )
    return tokenizer


def _for_the_middle(component: Mapping[str, Any] | None, children: str) -> Mapping[str, Any] | None:
    """A normalizer or pre-tokenizer that leaves the two ends of its text alone."""
    component = copy.deepcopy(component)
    for step in flatten(component, children):
        assert isinstance(step, dict)
        if step["type"] == "Prepend":
            step["prepend"] = ""
        if step["type"] == "Strip":
            step["strip_left"] = step["strip_right"] = False
        if "prepend_scheme" in step:
            step["prepend_scheme"] = "never"
        if "add_prefix_space" in step:
            step["add_prefix_space"] = False
    return component


def _model(description: Mapping[str, Any], added: list[dict[str, Any]]) -> Any:
    """The model with the added tokens in its vocabulary, which is what makes the library keep their ids."""
    model = description["model"]
    added_ids = {token["content"]: token["id"] for token in added}
    if model.get("type") == "BPE":  # built directly: several times faster than through JSON
        merges = [tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in model["merges"]]
        options = {key: model[key] for key in BPE_OPTIONS if model.get(key) is not None}
        return BPE(vocab=model["vocab"] | added_ids, merges=merges, **options)
    # Unlike BPE, the other models find any of their tokens in plain text.
    special = {token["content"] for token in description.get("added_tokens") or [] if token["special"]}
    if isinstance(model["vocab"], list):
        vocabulary: Any = _unigram_vocabulary(model["vocab"], special, added_ids)
    else:
        reachable = {token: index for token, index in model["vocab"].items() if token not in special}
        unknown = {token: index for token, index in model["vocab"].items() if token == model.get("unk_token")}
        vocabulary = reachable | unknown | added_ids
    return Tokenizer.from_str(json.dumps({"version": "1.0", "model": {**model, "vocab": vocabulary}})).model


def _unigram_vocabulary(
    scores: list[tuple[str, float]], special: set[str], added_ids: Mapping[str, int]
) -> list[tuple[str, float]]:
    """Ids are positions here, so names that stand for something else stay where they are and never win."""
    vocabulary = [
        (token, NEVER if token in special or BYTE_TOKEN.fullmatch(token) else score) for token, score in scores
    ]
    known = {token for token, _ in scores}
    for token, index in sorted(added_ids.items(), key=lambda item: item[1]):
        if token not in known:
            vocabulary += [(f"\0{gap}", NEVER) for gap in range(len(vocabulary), index)]
            vocabulary.append((token, NEVER))
    return vocabulary
