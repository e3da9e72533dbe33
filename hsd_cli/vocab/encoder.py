"""The tokenizer that reads text in the middle of a text, made from one that reads whole texts."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

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


def _model(description: Mapping[str, Any], added: list[dict[str, Any]]) -> models.Model:
    """The model with the added tokens in its vocabulary, which is what makes the library keep their ids."""
    model = description["model"]
    if isinstance(model["vocab"], list):
        vocabulary: Any = _unigram_vocabulary(description, added)
    else:
        vocabulary = model["vocab"] | {token["content"]: token["id"] for token in added}
    if model.get("type") == "BPE":  # built directly: several times faster than through JSON
        merges = [tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in model["merges"]]
        options = {key: model[key] for key in BPE_OPTIONS if model.get(key) is not None}
        return models.BPE(vocab=vocabulary, merges=merges, **options)
    return Tokenizer.from_str(json.dumps({"version": "1.0", "model": {**model, "vocab": vocabulary}})).model


def _unigram_vocabulary(description: Mapping[str, Any], added: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Unigram finds any of its tokens in plain text, so names that stand for something else must never win."""
    special = {token["content"] for token in description["added_tokens"] if token["special"]}
    vocabulary = [
        (token, NEVER if token in special or BYTE_TOKEN.fullmatch(token) else score)
        for token, score in description["model"]["vocab"]
    ]
    known = {token for token, _ in vocabulary}
    for token in sorted(added, key=lambda token: int(token["id"])):
        if token["content"] not in known:
            vocabulary += [(f"\0{index}", NEVER) for index in range(len(vocabulary), token["id"])]
            vocabulary.append((token["content"], NEVER))
    return vocabulary
