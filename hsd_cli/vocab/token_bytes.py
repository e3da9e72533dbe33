"""The bytes that each token adds to a text, derived from a ``tokenizer.json`` description.

A tokenizer's *decoder* says how its token strings become text, so the byte string of a token is what the chain of
decoder steps makes of it, except for the steps that only touch the two ends of a whole text.
"""

from __future__ import annotations

import re
from codecs import charmap_encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

Description = Mapping[str, Any]
# A token on its way through the decoder: text until a step turns it into bytes.
Piece = str | bytes
Step = Callable[[str], Piece]

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# What the library's WordPiece decoder rewrites in each piece when its clean-up is on.
CLEAN_UP = {
    " .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'", " n't": "n't",
    " 'm": "'m", " do not": " don't", " 's": "'s", " 've": "'ve", " 're": "'re",
}  # fmt: skip


@cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for every byte, inverted: character → byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def flatten(component: Description | None, children: str) -> Iterator[Description]:
    """The steps of a decoder, normalizer or pre-tokenizer, with nested sequences opened."""
    if component is None:
        return
    if component["type"] == "Sequence":
        for child in component[children]:
            yield from flatten(child, children)
    else:
        yield component


@cache
def _byte_of_character() -> dict[int, int]:
    return str.maketrans(byte_alphabet())


def _byte_level(text: str) -> bytes:
    try:
        return charmap_encode(text, "strict", _byte_of_character())[0]
    except UnicodeEncodeError:  # an added token with characters outside the alphabet stands for itself
        return text.encode("utf-8", "surrogatepass")


def _byte_fallback(text: str) -> Piece:
    match = BYTE_TOKEN.fullmatch(text)
    return bytes([int(match[1], 16)]) if match else text


def _word_piece(prefix: str, clean_up: bool) -> Callable[[str], str]:
    def change(text: str) -> str:
        text = text.removeprefix(prefix) if text.startswith(prefix) else " " + text
        if clean_up:
            for written, clean in CLEAN_UP.items():
                text = text.replace(written, clean)
        return text

    return change


def _replace(pattern: Description, content: str) -> Callable[[str], str]:
    if "String" in pattern:
        return lambda text: text.replace(pattern["String"], content)
    expression = re.compile(pattern["Regex"])
    return lambda text: expression.sub(lambda _: content, text)


def _strip(content: str, start: int, stop: int) -> Callable[[str], str]:
    def change(text: str) -> str:
        leading = len(text) - len(text.lstrip(content))
        text = text[min(leading, start) :]
        trailing = len(text) - len(text.rstrip(content))
        return text[: len(text) - min(trailing, stop)]

    return change


def _steps(description: Description) -> list[Step]:
    decoder = description.get("decoder")
    if decoder is None:
        # The library joins the tokens of such a tokenizer with spaces.
        return [lambda text: " " + text]
    steps: list[Step] = []
    for step in flatten(decoder, "decoders"):
        kind = step["type"]
        if kind == "ByteLevel":
            steps.append(_byte_level)
        elif kind == "ByteFallback":
            steps.append(_byte_fallback)
        elif kind == "Metaspace":
            mark = step["replacement"]
            steps.append(lambda text, mark=mark: text.replace(mark, " "))  # type: ignore[misc]
        elif kind == "WordPiece":
            steps.append(_word_piece(step["prefix"], step["cleanup"]))
        elif kind == "BPEDecoder":
            suffix = step["suffix"]
            steps.append(lambda text, suffix=suffix: text.replace(suffix, " "))  # type: ignore[misc]
        elif kind == "Replace":
            steps.append(_replace(step["pattern"], step["content"]))
        elif kind == "Strip":
            steps.append(_strip(step["content"], step["start"], step["stop"]))
        elif kind == "Fuse":
            break  # what follows sees the whole text and trims its ends
        else:
            raise ValueError(f"the decoder step {kind!r} is not supported")
    return steps


def token_ids(description: Description) -> dict[str, int]:
    """Every token string of the model and its id, added tokens apart."""
    vocabulary = description["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: [token, score] in id order
        return {token: index for index, (token, _) in enumerate(vocabulary)}
    return dict(vocabulary)


def token_bytes(description: Description) -> list[bytes | None]:
    """``bytes(x)`` of every id, ``None`` for special tokens, unknown-token markers and holes in the id range."""
    ids = token_ids(description)
    added = description.get("added_tokens") or []
    size = 1 + max([*ids.values(), *(token["id"] for token in added)], default=-1)
    table: list[bytes | None] = [None] * size
    for index, spelled in zip(reversed(ids.values()), reversed(_spelled(ids, description)), strict=True):
        table[index] = spelled  # where an id has several names, the first one in the file holds
    contents = [token["content"] for token in added]
    for token, spelled in zip(added, _spelled(contents, description), strict=True):
        table[token["id"]] = None if token["special"] else spelled
    unknown = _unknown_id(description, ids)
    if unknown is not None:
        table[unknown] = None
    return table


def _spelled(tokens: Iterable[str], description: Description) -> list[bytes]:
    """Step by step for all of them: a step is called for what is still text, and for nothing else."""
    pieces: list[Piece] = list(tokens)
    for step in _steps(description):
        pieces = [step(piece) if isinstance(piece, str) else piece for piece in pieces]
    return [piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece for piece in pieces]


def _unknown_id(description: Description, ids: dict[str, int]) -> int | None:
    model = description["model"]
    if "unk_id" in model:
        return model["unk_id"]  # type: ignore[no-any-return]
    unknown = model.get("unk_token")
    return None if unknown is None else ids.get(unknown)
