"""A vocabulary: the bytes of every token, and an encoder for text that continues a text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from hsd_cli.errors import EXIT_USAGE, HsdError
from hsd_cli.vocab.added_tokens import with_written_tokens
from hsd_cli.vocab.encoder import continuation_encoder
from hsd_cli.vocab.family import family
from hsd_cli.vocab.token_bytes import token_bytes, token_ids


class NoRowError(HsdError):
    """A text has a token that the model has no embedding for."""

    exit_code = EXIT_USAGE

    def __init__(self, token: str, index: int, rows: int) -> None:
        super().__init__(
            f"the token {token!r} has the id {index}, but the model's embeddings have {rows} rows (ids up to "
            f"{rows - 1}); take it out of the text, or get the weights that belong to this tokenizer"
        )


class Vocabulary:
    """One tokenizer's tokens as bytes.

    ``token_bytes[i]`` is what id ``i`` adds to a text, ``None`` where it adds nothing (special tokens, holes).
    ``eos_ids`` are the ids that end a text, the preferred one first. ``rows``: how many ids the model has embeddings
    for. Added tokens past them are none, so that their names are read as other text is.
    """

    def __init__(self, description: dict[str, Any], eos_ids: Sequence[int] = (), rows: int | None = None) -> None:
        self._rows = rows
        if rows is not None:
            added = [token for token in description.get("added_tokens") or [] if token["id"] < rows]
            description = description | {"added_tokens": added}
        self._description = description = with_written_tokens(description)
        self.eos_ids = tuple(eos_ids)
        self.token_bytes = token_bytes(description)

    def __len__(self) -> int:
        return len(self.token_bytes)

    @cached_property
    def first_ids(self) -> Mapping[bytes | None, int]:
        """The lowest id of every byte string that some token spells."""
        table = dict(zip(reversed(self.token_bytes), reversed(range(len(self))), strict=True))
        for nothing in (None, b""):
            table.pop(nothing, None)
        return table

    @cached_property
    def repeated_ids(self) -> dict[bytes, list[int]]:
        """All ids of the byte strings that several tokens spell, in increasing order."""
        table: dict[bytes, list[int]] = {}
        first_ids = map(self.first_ids.get, self.token_bytes)
        for index in [index for index, first in enumerate(first_ids) if first != index]:
            if spelled := self.token_bytes[index]:
                table.setdefault(spelled, [self.first_ids[spelled]]).append(index)
        return table

    @cached_property
    def second_names(self) -> dict[str, str]:
        """Names of ids that have another one before, which is the one that they write: name → that one."""
        ids = token_ids(self._description)
        if len(set(ids.values())) == len(ids):
            return {}
        first: dict[int, str] = {}
        names = {token: first.setdefault(index, token) for token, index in ids.items()}
        return {token: name for token, name in names.items() if token != name}

    @cached_property
    def longest(self) -> int:
        """Bytes of text that one token takes at most: its own, or a special token's name."""
        return max(len(self.token_bytes[index] or self._names.get(index, "").encode()) for index in range(len(self)))

    @cached_property
    def family(self) -> str:
        """What kind of tokenizer this is, for people to read."""
        return family(self._description)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides how this tokenizer reads and writes text."""
        parts = {key: self._description.get(key) for key in ("model", "added_tokens", "normalizer", "pre_tokenizer")}
        parts |= {"decoder": self._description.get("decoder"), "eos": self.eos_ids}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def same_tokens(self, other: Vocabulary) -> bool:
        """Whether both give every id the same meaning; padding of the models' heads does not matter."""
        return self.token_bytes == other.token_bytes and self._names == other._names

    @cached_property
    def _names(self) -> dict[int, str]:
        """Names of the ids that have no bytes: two special tokens are the same only by name."""
        return {
            token["id"]: token["content"]
            for token in self._description.get("added_tokens") or []
            if self.token_bytes[token["id"]] is None
        }

    def special_ids(self, names: Collection[str]) -> set[int]:
        """Those of the special tokens that are called so."""
        return {index for index, name in self._names.items() if name in names}

    def name(self, index: int) -> str:
        """A special token's own name, any other token's text."""
        spelled = self.token_bytes[index]
        return self._names.get(index, "") if spelled is None else spelled.decode("utf-8", "replace")

    def text_bytes(self, ids: Sequence[int]) -> bytes:
        """What the ids spell together; ids past the vocabulary (padding of a model's head) spell nothing."""
        table = self.token_bytes
        return b"".join(table[index] or b"" for index in ids if index < len(table))

    def encode(self, data: bytes) -> list[int]:
        """Tokens for bytes in the middle of a text: no BOS, no dummy prefix, special tokens' names are plain text.

        Bytes that are not valid UTF-8 become byte tokens where there are any, and nothing where there are none.
        Raises ``NoRowError``.
        """
        text = data.decode("utf-8", "surrogateescape")
        if text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text):
            return self._encode_text(text)
        ids: list[int] = []
        start = 0
        for index, character in enumerate(text):
            if "\udc80" <= character <= "\udcff":
                ids += self._encode_text(text[start:index])
                spelled = character.encode("utf-8", "surrogateescape")
                ids += [self.first_ids[spelled]] if spelled in self.first_ids else []
                start = index + 1
        return ids + self._encode_text(text[start:])

    def _encode_text(self, text: str) -> list[int]:
        ids = self._encoder.encode(text, add_special_tokens=False).ids if text else []
        if self._rows is not None and (greatest := max(ids, default=0)) >= self._rows:
            raise NoRowError(self.name(greatest), greatest, self._rows)
        return ids

    @cached_property
    def _encoder(self) -> Tokenizer:
        return continuation_encoder(self._description)
