"""Lossless speculative decoding with any drafter, from the shell."""

__version__ = "0.1.0"
