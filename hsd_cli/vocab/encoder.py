"""The tokenizer that reads text in the middle of a text, made from one that reads whole texts."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import PreTokenizer, Sequence, Split

from hsd_cli.vocab.token_bytes import flatten

BPE_OPTIONS = (
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)
ADDED_TOKEN_OPTIONS = ("single_word", "normalized")  # not those that swallow the spaces around: text would be lost


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
    steps = [step for step in (_plain_text_guard(description), shell.pre_tokenizer) if step is not None]
    if steps:
        tokenizer.pre_tokenizer = Sequence(steps)
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
    ids = {token["content"]: token["id"] for token in added}
    if model.get("type") == "BPE":  # built directly: several times faster than through JSON
        merges = [tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in model["merges"]]
        options = {key: model[key] for key in BPE_OPTIONS if model.get(key) is not None}
        return BPE(vocab=model["vocab"] | ids, merges=merges, **options)
    vocabulary = _extended(model["vocab"], ids) if isinstance(model["vocab"], list) else model["vocab"] | ids
    return Tokenizer.from_str(json.dumps({"version": "1.0", "model": {**model, "vocab": vocabulary}})).model


def _extended(scores: list[tuple[str, float]], ids: Mapping[str, int]) -> list[tuple[str, float]]:
    """A Unigram vocabulary, where ids are positions, with other names for some tokens and more tokens at the end."""
    scores = list(scores)
    for token, index in sorted(ids.items(), key=lambda item: item[1]):
        scores += [(f"\0unused {gap}", 0.0) for gap in range(len(scores), index + 1)]
        scores[index] = (token, scores[index][1])
    return scores


def _plain_text_guard(description: Mapping[str, Any]) -> PreTokenizer | None:
    """Splits what merely looks like a special token or a byte token, so that the model cannot take it for one.

    Merges never lead to such a token, so BPE needs no guard, unless it takes whole words without merging.
    """
    model = description["model"]
    if model.get("type") == "BPE" and not model.get("ignore_merges"):
        return None
    special = [token["content"] for token in description.get("added_tokens") or [] if token["special"]]
    patterns = [f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in special if len(name) > 1]
    if model.get("byte_fallback"):
        patterns.append("<(?=0x[0-9A-Fa-f]{2}>)")
    return Split(Regex("|".join(patterns)), "isolated") if patterns else None
