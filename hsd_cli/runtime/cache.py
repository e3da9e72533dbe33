"""A preallocated KV cache that rolls back in O(1)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

from hsd_cli.errors import HsdError


def first_visible(length: int, window: int | None) -> int:
    """The first position that what follows ``length`` tokens can see."""
    return 0 if window is None else max(0, length - window + 1)


class RollbackLayer(CacheLayerMixin):
    """Keys and values of one attention layer, ``[1, heads, capacity, head_dim]``, of which ``length`` are in use.

    Nothing is ever dropped, so that rolling back is only a smaller ``length``; a layer with a sliding ``window``
    hands out just the part that the window can see.
    """

    is_croppable = True

    def __init__(self, capacity: int, window: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self.window = window
        self.is_sliding = window is not None
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = self._room_like(key_states, self.capacity)
        self.values = self._room_like(value_states, self.capacity)
        self.is_initialized = True

    @staticmethod
    def _room_like(states: torch.Tensor, capacity: int) -> torch.Tensor:
        return states.new_empty(*states.shape[:2], capacity, states.shape[3])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = first_visible(self.length, self.window), self.length + key_states.shape[2]
        if end > self.capacity:
            self._grow(end)
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, start:end], self.values[:, :, start:end]

    def _grow(self, needed: int) -> None:
        """Doubles the room: a drafter's share of the text is not known beforehand. Copies O(1) per token, amortised."""
        capacity = max(needed, 2 * self.capacity)
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = self._room_like(old, capacity)
            new[:, :, : self.length] = old[:, :, : self.length]
            setattr(self, name, new)
        self.capacity = capacity

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        start = first_visible(self.length, self.window)
        return self.length + query_length - start, start

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


class RecurrentRollbackLayer(LinearAttentionLayer, RollbackLayer):  # type: ignore[misc, override]
    """A layer with a recurrent state beside its keys and values."""

    is_compileable = False

    def __init__(self, capacity: int, window: int | None, number_of_states: int) -> None:
        RollbackLayer.__init__(self, capacity, window)
        LinearAttentionLayer.__init__(self, number_of_states)

    def lazy_initialization(self, *keys_and_values: Any, **states: Any) -> None:
        if keys_and_values:
            RollbackLayer.lazy_initialization(self, *keys_and_values)
        else:
            LinearAttentionLayer.lazy_initialization(self, **states)


class RollbackCache(Cache):
    """The cache of a whole model. Raises ``HsdError`` for models whose state cannot be rolled back.

    Recurrent states, where there are some, have to be rolled back by other means; see ``recurrent``.
    """

    def __init__(self, config: PreTrainedConfig, capacity: int) -> None:
        super().__init__(layers=[_rollback_layer(layer, capacity) for layer in DynamicCache(config=config).layers])

    @cached_property
    def _rolled_back(self) -> list[RollbackLayer]:
        return [layer for layer in self.layers if isinstance(layer, RollbackLayer)]

    @cached_property
    def windows(self) -> set[int | None]:
        """Those of its layers."""
        return {layer.window for layer in self._rolled_back}

    @property
    def recurrent_layers(self) -> list[LinearAttentionCacheLayerMixin]:
        return [layer for layer in self.layers if isinstance(layer, LinearAttentionCacheLayerMixin)]

    @property
    def recurrent_states(self) -> list[torch.Tensor]:
        """All of them; none before the first token is read."""
        return [
            state
            for layer in self.recurrent_layers
            for states in (layer.conv_states, layer.recurrent_states)
            for state in states.values()
            if state is not None
        ]

    def holds(self, length: int) -> bool:
        """Whether the model has read ``length`` tokens into it. A recurrent layer can only tell that it was used."""
        return (not self._rolled_back or self.get_seq_length() == length) and all(
            all(layer.has_previous_state.values()) for layer in self.recurrent_layers
        )

    def rollback(self, length: int) -> None:
        """Forgets every position from ``length`` on. O(1), nothing is copied."""
        for layer in self._rolled_back:
            layer.length = length


def _rollback_layer(layer: Any, capacity: int) -> Any:
    """Our counterpart of the layer that the library would use for this model."""
    if type(layer) is DynamicLayer:
        return RollbackLayer(capacity)
    if type(layer) is DynamicSlidingWindowLayer:
        return RollbackLayer(capacity, window=layer.sliding_window)
    if type(layer) is LinearAttentionAndFullAttentionLayer:
        return RecurrentRollbackLayer(capacity, None, layer.number_of_states)
    if type(layer) is LinearAttentionAndSlidingWindowAttentionLayer:
        return RecurrentRollbackLayer(capacity, layer.sliding_window, layer.number_of_states)
    # Reuses another layer's keys and values, or has a recurrent state alone.
    if type(layer) in (DummyLayer, LinearAttentionLayer):
        return layer
    raise HsdError(
        f"this model keeps a state that cannot be rolled back ({type(layer).__name__}); "
        "choose a model with plain or sliding-window attention"
    )
