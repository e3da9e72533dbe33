"""Tiny models and vocabularies whose laws can be written down: tables of logits over a handful of tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, decoders, models

from hsd_cli.runtime.model import common_prefix
from hsd_cli.vocab.vocabulary import Vocabulary

END = "</s>"


def vocabulary(tokens: Sequence[str]) -> Vocabulary:
    """A Unigram vocabulary: ids in the given order, long tokens preferred, ``</s>`` special, ``<0xNN>`` a byte."""
    pieces = [("<unk>", -100.0)] + [(token, -1.0) for token in tokens]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([token for token in tokens if token == END])
    description = json.loads(tokenizer.to_str())
    eos = [1 + tokens.index(END)] if END in tokens else []
    return Vocabulary(description, eos)


class TableModel:
    """A ``LanguageModel`` whose logits after a text are a fixed random function of its last ``order`` tokens."""

    def __init__(self, size: int, seed: int, order: int = 2, context_size: int = 1 << 20, spread: float = 1.5) -> None:
        self.vocabulary_size = size
        self.context_size = context_size
        self.device = torch.device("cpu")
        self.read: list[int] = []
        self._seed, self._order, self._spread = seed, order, spread
        self._table: dict[tuple[int, ...], torch.Tensor] = {}

    @property
    def length(self) -> int:
        return len(self.read)

    def logits_after(self, ids: Sequence[int]) -> torch.Tensor:
        key = tuple(ids[-self._order :])
        if key not in self._table:
            generator = torch.Generator().manual_seed(hash((self._seed, *key)) % (1 << 31))
            self._table[key] = torch.randn(self.vocabulary_size, generator=generator) * self._spread
        return self._table[key]

    def begin(self, text: list[int]) -> None:
        kept = common_prefix(self.read, text)
        self.rollback(min(kept, len(text) - 1))

    def prefill(self, ids: Sequence[int]) -> torch.Tensor:
        assert len(ids) > 0
        self.read.extend(ids)
        return self.logits_after(self.read)[None]

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.prefill([token]) for token in ids.tolist()])

    def rollback(self, length: int) -> None:
        assert length <= len(self.read)
        del self.read[length:]
