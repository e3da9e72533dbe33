"""What a GGUF file says before its weights: metadata, and where each tensor lies.

The packages that read such files trust what they read, take seconds for a large vocabulary, or know some kinds of
weights only: lengths that a damaged file has are checked here, before anything else opens it.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

from hsd_cli.errors import HsdError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
LONG = 1000  # a list with something for each token
ALIGNMENT = 32  # of the weights, where the metadata do not say it


@dataclass(frozen=True)
class StoredTensor:
    """``shape`` as in torch, ``kind`` as GGML numbers its types, ``begin`` and ``end`` in bytes of the file."""

    shape: tuple[int, ...]
    kind: int
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """``small`` is a whole file with all that this one says, but for long lists and the weights."""

    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]
    small: bytes

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])

    def of_architecture(self, key: str) -> Any:
        """What the metadata say of this kind of model; ``None`` if it is not there."""
        return self.metadata.get(f"{self.architecture}.{key}")


def is_gguf(path: Path) -> bool:
    """By its first bytes: in Ollama's store the names tell nothing."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_header(path: Path) -> Header:
    """Raises ``HsdError`` for a file that is damaged, cut off, or one of several that make a model, and where the
    package is missing that knows the types of weights."""
    if find_spec("gguf") is None:
        raise HsdError(f"{path.name!r} is a GGUF file, which needs a package more; run: pip install 'hsd-cli[gguf]'")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Reader(data).header()
            if (last := max((tensor.end for tensor in header.tensors.values()), default=1 << 62)) > len(data):
                raise ValueError(f"{len(data)} of {last} bytes are there")
    except (struct.error, ValueError, LookupError, TypeError, ArithmeticError, MemoryError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise HsdError(f"{str(path)!r} is damaged or cut off ({reason}); download it again") from error
    if header.metadata.get("split.count", 1) != 1:
        raise HsdError(f"{str(path)!r} is one of several files; make one of them: llama-gguf-split --merge FIRST ALL")
    return header


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._place = data, len(MAGIC)

    def header(self) -> Header:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        version, tensors, entries = self._numbers("IQQ")
        if version not in VERSIONS:
            raise ValueError(f"version {version}")
        metadata, described = {}, []
        for _ in range(entries):
            begin = self._place
            key = self._text()
            value = metadata[key] = self._value(*self._numbers("I"))
            if not (isinstance(value, list) and len(value) > LONG):
                described.append(self._data[begin : self._place])
        table = {}
        for _ in range(tensors):
            name = self._text()
            (dimensions,) = self._numbers("I")
            table[name] = (self._numbers(f"{dimensions}Q")[::-1], *self._numbers("IQ"))
        alignment = metadata.get("general.alignment", ALIGNMENT)
        first = -(-self._place // alignment) * alignment
        stored = {}
        for name, (shape, kind, offset) in table.items():
            weights, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            stored[name] = StoredTensor(shape, kind, first + offset, first + offset + prod(shape) // weights * size)
        if not isinstance(metadata["general.architecture"], str):
            raise TypeError("no name of an architecture")
        return Header(metadata, stored, _small_file(version, described, list(table)))

    def _numbers(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{layout}", self._data, self._place)
        self._place += struct.calcsize(f"<{layout}")
        return found

    def _text(self) -> str:
        (length,) = self._numbers("Q")
        (characters,) = self._numbers(f"{length}s")
        return str(characters, "utf-8")

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            return self._numbers(FORMATS[kind])[0]
        kind, length = self._numbers("IQ")
        if kind == STRING:
            return [self._text() for _ in range(length)]
        return list(self._numbers(f"{length}{FORMATS[kind]}"))


def _small_file(version: int, metadata: list[bytes], names: list[str]) -> bytes:
    """Tensors by these names, one number each."""
    tensors = b"".join(
        struct.pack(f"<Q{len(name.encode())}sIQIQ", len(name.encode()), name.encode(), 1, 1, 0, 0) for name in names
    )
    start = MAGIC + struct.pack("<IQQ", version, len(names), len(metadata)) + b"".join(metadata) + tensors
    return start + bytes(1024)  # wherever the weights have to begin
