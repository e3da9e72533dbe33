"""How a target spells every token of a drafter. Worked out once for two tokenizers and kept on disk."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path

from hsd_cli.storage import cache_folder, write_atomically
from hsd_cli.vocab.overlap import overlap
from hsd_cli.vocab.vocabulary import Vocabulary

VERSION = 1  # of what is worked out and of how it is written down

Segment = tuple[int, ...]


def segmentation(drafter: Vocabulary, target: Vocabulary) -> list[Segment]:
    """Target ids that spell each drafter id, from the disk if they are there; see ``segment``."""
    key = hashlib.sha256(f"{VERSION} {drafter.fingerprint} {target.fingerprint}".encode()).hexdigest()
    path = cache_folder() / "segments" / key
    segments = _read(path, key)
    if segments is None:
        segments = segment(drafter, target)
        with suppress(OSError):  # a full or read-only disk costs the time to work it out again, nothing else
            write_atomically(path, _pack(segments, key))
    return segments


def segment(drafter: Vocabulary, target: Vocabulary) -> list[Segment]:
    """For each drafter id the one target token with its bytes, else its bytes in the target's segmentation.

    Empty for special tokens (but end of text, which has its role's counterpart) and for what the target cannot spell.
    """
    segments = [_encoded(spelled, target) for spelled in drafter.token_bytes]
    for index in drafter.eos_ids:
        if index < len(segments):
            segments[index] = ()
    for index, counterpart in overlap(drafter, target).pairs:
        segments[index] = (counterpart,)
    return segments


def _encoded(spelled: bytes | None, target: Vocabulary) -> Segment:
    if not spelled:
        return ()
    tokens = target.encode(spelled)
    return tuple(tokens) if target.text_bytes(tokens) == spelled else ()


def _pack(segments: Sequence[Segment], key: str) -> bytes:
    """A digest, then int32: the number of segments, their lengths, their tokens."""
    numbers = array("i", [len(segments), *map(len, segments), *(token for tokens in segments for token in tokens)])
    payload = numbers.tobytes()
    return _digest(payload, key) + payload


def _digest(payload: bytes, key: str) -> bytes:
    return hashlib.sha256(key.encode() + payload).digest()


def _read(path: Path, key: str) -> list[Segment] | None:
    """What was kept; ``None`` if there is nothing, or nothing whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, payload = data[:32], data[32:]
    if digest != _digest(payload, key):
        return None
    numbers = array("i")
    numbers.frombytes(payload)
    count = numbers[0]
    return list(_cut(numbers[1 : 1 + count], numbers[1 + count :].tolist()))


def _cut(lengths: Sequence[int], tokens: Sequence[int]) -> Iterator[Segment]:
    for start, end in pairwise(accumulate(lengths, initial=0)):
        yield tuple(tokens[start:end])
