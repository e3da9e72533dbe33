"""A causal language model with a position that can move back."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

import torch
from transformers import PreTrainedModel

from hsd_cli.errors import HsdError
from hsd_cli.runtime.cache import RollbackCache
from hsd_cli.runtime.compiling import Compilation, refuse
from hsd_cli.runtime.context import context_size_of
from hsd_cli.runtime.dense import DenseDecoder, Reading, dense_decoder
from hsd_cli.runtime.device import upload
from hsd_cli.runtime.graphs import graphs_for
from hsd_cli.runtime.joint import JointPasses
from hsd_cli.runtime.placement import input_device
from hsd_cli.runtime.recurrent import Replay
from hsd_cli.runtime.static import StaticReader
from hsd_cli.runtime.threads import Threads

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


def cache_argument(model: PreTrainedModel) -> str:
    """The name by which ``forward`` takes the cache."""
    return "cache_params" if "cache_params" in inspect.signature(model.forward).parameters else "past_key_values"


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of ids with which both begin."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))


def context_size(model: PreTrainedModel, prompt: int) -> int:
    """Positions that a text of ``model`` may have that begins with ``prompt`` tokens."""
    text_config = model.config.get_text_config(decoder=True)
    # The library chooses angles anew at every pass, the lean one for a whole text.
    return context_size_of(text_config, 0 if dense_decoder(model) is None else prompt)


# Asking takes forward passes: once per model, not per text.
_known_causal: WeakSet[PreTrainedModel] = WeakSet()
_reads_on: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()  # of the recurrent ones


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for rounding: experts, for one, share their work with other tokens each time."""
    return not (one - other).std() > torch.finfo(one.dtype).eps ** 0.5 * one.std()


class CachedModel:
    """A ``LanguageModel`` around a causal LM of transformers. The model itself is never changed.

    ``capacity`` is the number of tokens that the cache has room for at first; it grows when needed.
    ``joint`` has what is read by several texts at a time read in one pass, where the model has a lean one.
    ``compilation`` is shared by all that read with ``model``; without one nothing is compiled. So are ``threads``;
    without them passes take as many as the caller has.
    Raises ``HsdError`` if the model's state cannot be rolled back, or if it is not causal.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        capacity: int,
        joint: JointPasses | None = None,
        compilation: Compilation | None = None,
        threads: Threads | None = None,
    ) -> None:
        self._model = model
        self._joint = joint
        self._threads = threads if joint is None else None
        self._read = 0
        self._text: list[int] = []
        parameters = inspect.signature(model.forward).parameters
        self._keeps_few_logits = "logits_to_keep" in parameters
        self._cache_name = cache_argument(model)
        self._takes_positions = "position_ids" in parameters
        text_config = model.config.get_text_config(decoder=True)
        if model.config.is_encoder_decoder:
            raise HsdError(f"{model.config.model_type} is an encoder-decoder; hsd needs a causal language model")
        self._config = text_config
        self.context_size = context_size_of(text_config)
        self._cache = RollbackCache(text_config, min(capacity, self.context_size))
        self.device = input_device(model)
        self._replay = Replay(self._cache, self.device) if self._cache.recurrent_layers else None
        if not model._supports_default_dynamic_cache():  # type: ignore[operator]
            raise HsdError(
                f"{model.config.model_type} keeps a state that cannot be rolled back; "
                "choose a model with plain or sliding-window attention"
            )
        # The head may be wider than the vocabulary: padded ids are part of the target's distribution all the same.
        self.vocabulary_size = model.get_output_embeddings().weight.shape[0]
        self._dense = dense_decoder(model)
        self._stretched: DenseDecoder | None = None  # what reads this text, if it is one of those
        self._compilation = compilation or Compilation("never")
        self._graphs = None
        if self._dense is not None and joint is None:
            self._graphs = graphs_for(self.device)
        elif self._dense is not None and joint is not None:
            self._cache = joint.cache(self._dense, self._compilation, capacity, threads)
        self._static: StaticReader | None = None
        self._made = self._end = self._expected = 0
        if self._dense is None and model not in _known_causal:
            self._refuse_foresight()
            _known_causal.add(model)
        if self._replay is not None:
            if model not in _reads_on:
                _reads_on[model] = self._asked_whether_it_reads_on()
            self._replay.one_by_one = not _reads_on[model]

    def _refuse_foresight(self) -> None:
        """Raises ``HsdError`` if what the model says after a token depends on the tokens that follow it.

        The model itself is asked, since no config tells: causal GPT-NeoX has ``is_decoder=False`` as bidirectional
        BERT has, and ``use_bidirectional_attention`` can be about images alone.
        """
        spread = torch.arange(8, device=self.device) * self.vocabulary_size // 8
        one, other = self._after_first(spread), self._after_first(spread // 2)
        if not _alike(one, other):
            raise HsdError(
                f"{self._model.config.model_type} sees tokens that are yet to be written (bidirectional attention); "
                "choose a causal language model"
            )

    def _after_first(self, ids: torch.Tensor) -> torch.Tensor:
        """The logits after the first of ``ids``, read together; ``[vocabulary_size]``."""
        logits = self.run(ids)[0]
        self.rollback(0)
        return logits

    def _asked_whether_it_reads_on(self) -> bool:
        """Whether several tokens at once are read as what follows those before them, not as a text's beginning."""
        spread = torch.arange(8, device=self.device) * self.vocabulary_size // 8
        at_once = self.run(spread)[-1]
        self.rollback(0)
        self.run(spread[:3])
        in_parts = self.run(spread[3:])[-1]
        self.rollback(0)
        return _alike(at_once, in_parts)

    @property
    def length(self) -> int:
        return self._read

    def begin(self, text: list[int]) -> None:
        self.context_size = context_size(self._model, len(text))
        before, self._stretched = self._stretched, None
        if self._dense is not None and self.context_size > context_size_of(self._config):
            self._stretched = self._dense.stretched
        if self._stretched is not before:
            self.rollback(0)
        self.rollback(min(common_prefix(self._text[: self._read], text), len(text) - 1))
        self._text = text
        self._made, self._end = 0, len(text) + self._expected

    def expect(self, tokens: int) -> None:
        """No text that begins from now on gets more than ``tokens``."""
        self._expected = tokens

    def compile(self) -> None:
        """Compiles what can be of a pass, whether that pays or not."""
        if self._dense is None or self._graphs is None:
            refuse("it is for plain dense models on CUDA GPUs")
        else:
            self._compilation.settle(self._dense, self._graphs)

    def prefill(self, ids: Sequence[int]) -> torch.Tensor:
        tokens = upload(ids, self.device)
        for chunk in tokens.split(PREFILL_CHUNK):
            logits = self._forward(chunk, keep=1)
        return logits

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        return self._forward(ids, keep=len(ids))

    def _forward(self, ids: torch.Tensor, keep: int) -> torch.Tensor:
        if self._threads is None:
            return self._read_on(ids, keep)
        return self._threads.run(partial(self._read_on, ids, keep), len(ids))

    @torch.inference_mode()
    def _read_on(self, ids: torch.Tensor, keep: int) -> torch.Tensor:
        if self._dense is not None:
            reading = Reading(ids, self._cache, self._read, keep)
            if self._stretched is not None:
                logits = self._stretched.logits([reading])[0]
            elif self._joint is not None:
                logits = self._joint.read(reading)
            else:
                logits = self._dense_pass(self._dense, reading)
            self._read += len(ids)
            return logits
        options: dict[str, Any] = {self._cache_name: self._cache, "use_cache": True}
        if self._keeps_few_logits:
            options["logits_to_keep"] = keep
        parts = [ids] if self._replay is None else self._replay.passes(ids)
        logits = torch.cat([self._library_pass(part, options) for part in parts])
        self._read += len(ids)
        if not self._cache.holds(self._read):
            raise HsdError(f"{self._model.config.model_type} does not use the cache it is given; it is not supported")
        return logits[-keep:]

    def _library_pass(self, ids: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        if self._takes_positions:  # as ``generate`` does; not every model counts what is in the cache
            start = self._read if self._replay is None else self._replay.position
            options["position_ids"] = torch.arange(start, start + len(ids), device=self.device)[None]
        return self._model(input_ids=ids[None], **options).logits[0]  # type: ignore[no-any-return]

    def _dense_pass(self, decoder: DenseDecoder, reading: Reading) -> torch.Tensor:
        logits = self._static_pass(decoder, reading.ids, reading.keep)
        return decoder.logits([reading])[0] if logits is None else logits

    def _static_pass(self, decoder: DenseDecoder, ids: torch.Tensor, keep: int) -> torch.Tensor | None:
        """The pass as one launch, ``None`` where that is not to be had."""
        if self._graphs is None or not self._cache.get_seq_length():
            return None
        self._made += 1
        decoder = self._compilation.decoder(decoder, self._graphs, self._made, self._end - self._read)
        if self._static is None or not self._static.serves(decoder, self._cache):
            self._static = StaticReader(decoder, self._cache, self._graphs)
        logits = self._static.logits(ids, self._read, keep)
        if logits is not None:
            self._cache.rollback(self._read + len(ids))  # forwards, here: the device knows no lengths
        return logits

    def rollback(self, length: int) -> None:
        if self._replay is None:
            self._cache.rollback(length)
        else:
            self._replay.rollback(length)
        self._read = length
