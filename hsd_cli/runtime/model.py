"""A causal language model with a position that can move back."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakSet

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from hsd_cli.errors import HsdError
from hsd_cli.runtime.cache import RollbackCache
from hsd_cli.runtime.dense import DenseDecoder, dense_decoder
from hsd_cli.runtime.device import upload
from hsd_cli.runtime.graphs import graphs_for
from hsd_cli.runtime.static import StaticReader

PREFILL_CHUNK = 2048  # tokens per forward pass: bounds the memory that a long prompt's activations take


class LanguageModel(Protocol):
    """What drafting and decoding need of a model: it has read ``length`` tokens and predicts what follows."""

    vocabulary_size: int
    context_size: int
    device: torch.device

    @property
    def length(self) -> int:
        """Number of tokens read."""

    def begin(self, text: list[int]) -> None:
        """Turns to another text, which the caller goes on to read and to grow. What was read of the one before stays
        as far as the two begin alike, but for the last token of ``text``: there is always something left to read.
        """

    def prefill(self, ids: Sequence[int]) -> torch.Tensor:
        """Reads ``ids``; returns the logits after the last of them, ``[1, vocabulary_size]``."""

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        """Reads ``ids`` (int64 ``[k]``) in one pass; returns the logits after each, ``[k, vocabulary_size]``."""

    def rollback(self, length: int) -> None:
        """Forgets every token from ``length`` on, in O(1)."""


def context_size_of(config: PreTrainedConfig) -> int:
    """Positions up to which a token's keys do not depend on what else its forward pass reads."""
    size: int = getattr(config, "max_position_embeddings", None) or 1 << 30
    rope = getattr(config, "rope_parameters", None) or {}
    scalings = [rope] if "rope_type" in rope else rope.values()  # one for all layers, or one for each kind of layer
    for scaling in scalings:
        # Rescales all positions once a pass goes further than that (as "dynamic" does at the end of the context).
        if scaling and scaling.get("rope_type") == "longrope":
            size = min(size, scaling.get("original_max_position_embeddings") or size)
    return size


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of ids with which both begin."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))


_known_causal: WeakSet[PreTrainedModel] = WeakSet()  # asking takes two forward passes: once per model, not per text


class CachedModel:
    """A ``LanguageModel`` around a causal LM of transformers. The model itself is never changed.

    ``capacity`` is the number of tokens that the cache has room for at first; it grows when needed.
    Raises ``HsdError`` if the model's state cannot be rolled back, or if it is not causal.
    """

    def __init__(self, model: PreTrainedModel, capacity: int) -> None:
        self._model = model
        self._read = 0
        self._text: list[int] = []
        self._keeps_few_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        text_config = model.config.get_text_config(decoder=True)
        if model.config.is_encoder_decoder:
            raise HsdError(f"{model.config.model_type} is an encoder-decoder; hsd needs a causal language model")
        if getattr(model, "_is_stateful", False):
            raise HsdError(
                f"{model.config.model_type} keeps a recurrent state that cannot be rolled back; "
                "choose a model with plain or sliding-window attention"
            )
        self.context_size = context_size_of(text_config)
        self._cache = RollbackCache(text_config, min(capacity, self.context_size))
        self.device = model.device
        # The head may be wider than the vocabulary: padded ids are part of the target's distribution all the same.
        self.vocabulary_size = model.get_output_embeddings().weight.shape[0]
        self._dense = dense_decoder(model, self._cache)
        self._graphs = None if self._dense is None else graphs_for(self.device)
        self._static: StaticReader | None = None
        if self._dense is None and model not in _known_causal:
            self._refuse_foresight()
            _known_causal.add(model)

    def _refuse_foresight(self) -> None:
        """Raises ``HsdError`` if what the model says after a token depends on the tokens that follow it.

        The model itself is asked, since no config tells: causal GPT-NeoX has ``is_decoder=False`` as bidirectional
        BERT has, and ``use_bidirectional_attention`` can be about images alone.
        """
        spread = torch.arange(8, device=self.device) * self.vocabulary_size // 8
        one, other = self._after_first(spread), self._after_first(spread // 2)
        # Equal but for rounding: experts, for one, share their work with other tokens each time.
        if (one - other).std() > torch.finfo(one.dtype).eps ** 0.5 * one.std():
            raise HsdError(
                f"{self._model.config.model_type} sees tokens that are yet to be written (bidirectional attention); "
                "choose a causal language model"
            )

    def _after_first(self, ids: torch.Tensor) -> torch.Tensor:
        """The logits after the first of ``ids``, read together; ``[vocabulary_size]``."""
        logits = self.run(ids)[0]
        self.rollback(0)
        return logits

    @property
    def length(self) -> int:
        return self._read

    def begin(self, text: list[int]) -> None:
        self.rollback(min(common_prefix(self._text[: self._read], text), len(text) - 1))
        self._text = text

    def prefill(self, ids: Sequence[int]) -> torch.Tensor:
        tokens = upload(ids, self.device)
        for chunk in tokens.split(PREFILL_CHUNK):
            logits = self._forward(chunk, keep=1)
        return logits

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        return self._forward(ids, keep=len(ids))

    @torch.inference_mode()
    def _forward(self, ids: torch.Tensor, keep: int) -> torch.Tensor:
        if self._dense is not None:
            logits = self._static_pass(self._dense, ids, keep)
            if logits is None:
                logits = self._dense.logits(ids, self._cache, self._read, keep)
            self._read += len(ids)
            return logits
        few = {"logits_to_keep": keep} if self._keeps_few_logits else {}
        output = self._model(input_ids=ids[None], past_key_values=self._cache, use_cache=True, **few)
        self._read += len(ids)
        if self._cache.get_seq_length() != self._read:
            raise HsdError(f"{self._model.config.model_type} does not use the cache it is given; it is not supported")
        return output.logits[0, -keep:]  # type: ignore[no-any-return]

    def _static_pass(self, decoder: DenseDecoder, ids: torch.Tensor, keep: int) -> torch.Tensor | None:
        """The pass as one launch, ``None`` where that is not to be had."""
        if self._graphs is None or not self._cache.get_seq_length():
            return None
        if self._static is None or not self._static.serves(self._cache):
            self._static = StaticReader(decoder, self._cache, self._graphs)
        logits = self._static.logits(ids, self._read, keep)
        if logits is not None:
            self._cache.rollback(self._read + len(ids))  # forwards, here: the device knows no lengths
        return logits

    def rollback(self, length: int) -> None:
        self._cache.rollback(length)
        self._read = length
