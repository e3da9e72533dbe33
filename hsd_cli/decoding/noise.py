"""Random numbers that belong to an output position and a token, not to a moment: the noise that both sides share."""

from __future__ import annotations

import torch

GOLDEN = 0x9E3779B97F4A7C15
WORD = (1 << 64) - 1


def _signed(value: int) -> int:
    value &= WORD
    return value - (1 << 64) if value >> 63 else value


def _scramble(z: torch.Tensor) -> torch.Tensor:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014)."""
    # Torch shifts int64 arithmetically: the sign has to be masked off.
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _signed(0x94D049BB133111EB)
    return z ^ ((z >> 31) & ((1 << 33) - 1))


def exponential_noise(seed: int, positions: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Independent Exp(1) variates ``E``, float32 ``[k, n]``, for ``positions`` of the text (int64 ``[k]``) and
    ``tokens`` (int64 ``[n]``).

    A pure function of seed, position and token, the same on every device. ``argmax(log p - log E)`` is a draw from
    ``p``: ``-log E`` is Gumbel noise.
    """
    keys = _scramble(_scramble(positions[:, None] * _signed(GOLDEN) + _signed(seed * GOLDEN)) + _signed(seed))
    bits = _scramble(keys + (tokens + 1) * _signed(GOLDEN))
    # Small E decide, so the uniform numbers have to be fine near 0: 53 bits there, and never 0 or 1.
    uniform = ((bits >> 11) & ((1 << 53) - 1) | 1).float() * 2.0**-53
    return -torch.log1p(-uniform.clamp(max=1 - 2.0**-24))
