"""The header of a GGUF file, read without trusting it: every length is checked before anything of that length is made.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. Memory stays within a few
times the header; the limits below are far above those of real models.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry.errors import DataError

HEADER = 2**27
"""Bytes within which metadata and tensor table must end."""
KEYS = 2**16
"""The most metadata entries, and the most tensors."""
ITEMS = 2**21
"""The most items in all arrays together; a vocabulary of 260,000 tokens with its merges has 1.3 million."""
_DIMENSIONS = 4
_KEY_BYTES = 2**16 - 1
_ALIGNMENT = "general.alignment"
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17),
}  # fmt: skip
"""Numbers and bytes of a block, by the tensor type's number."""


@dataclass(frozen=True)
class Tensor:
    """One entry of the tensor table: shape (fastest axis first), type number, offset and size in the data, in bytes."""

    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself, arrays as tuples of numbers or lists of strings; where tensor data begins."""

    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    data: int


class _MalformedError(Exception):
    """What is wrong, without the file's name."""


class _Cursor:
    """Reads forward through the first bytes of a file, and no further than they reach."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._items = ITEMS
        self.at = 0

    def take(self, count: int, what: str) -> bytes:
        if count > len(self._content) - self.at:
            raise _MalformedError(f"{what} of {count:,} bytes at byte {self.at:,} reaches past the header")
        self.at += count
        return self._content[self.at - count : self.at]

    def number(self, code: str, what: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}"), what))[0]

    def items(self, count: int, what: str) -> int:
        self._items -= count
        if self._items < 0:
            raise _MalformedError(f"{what} has {count:,} items; at most {ITEMS:,} are allowed in all arrays")
        return count

    def string(self, what: str, most: int = HEADER) -> str:
        length = self.number("Q", what)
        if length > most:
            raise _MalformedError(f"{what} of {length:,} bytes; at most {most:,} are allowed")
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            raise _MalformedError(f"{what} at byte {self.at:,} is not UTF-8") from None


def read(path: Path) -> Header:
    """Read and check the header of a GGUF file.

    Raises:
        DataError: It is no GGUF file of version 2 or 3, or what it says cannot be true of a file of its size.
    """
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            content = file.read(min(total, HEADER))
        return _header(_Cursor(content), total)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except _MalformedError as error:
        raise DataError(f"{path}: not a GGUF file that can be read: {error}; fetch or make it again") from None


def _header(cursor: _Cursor, total: int) -> Header:
    if cursor.take(4, "the magic") != b"GGUF":
        raise _MalformedError("it does not begin with GGUF")
    version = cursor.number("I", "the version")
    if version not in (2, 3):
        raise _MalformedError(f"version {version}; expected 2 or 3, little-endian")
    tensors, keys = cursor.number("Q", "the tensor count"), cursor.number("Q", "the metadata count")
    if max(tensors, keys) > KEYS:
        raise _MalformedError(f"{tensors:,} tensors and {keys:,} metadata entries; at most {KEYS:,} are allowed")
    metadata = _entries(keys, cursor, _entry)
    alignment = metadata.get(_ALIGNMENT, 32)
    if type(alignment) is not int or not 8 <= alignment <= 2**16 or alignment & (alignment - 1):
        raise _MalformedError(f"an alignment of {alignment!r}; expected a power of two from 8")
    table = _entries(tensors, cursor, _tensor)
    start = -(-cursor.at // alignment) * alignment
    for name, tensor in table.items():
        if tensor.offset % alignment or start + tensor.offset + tensor.size > total:
            raise _MalformedError(f"tensor {name[:80]!r} is not aligned, or reaches past the end of the file")
    return Header(version, metadata, table, start)


def _entries(count: int, cursor: _Cursor, one: Callable[[_Cursor], tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(count):
        name, value = one(cursor)
        if name in found:
            raise _MalformedError(f"{name[:80]!r} appears twice")
        found[name] = value
    return found


def _entry(cursor: _Cursor) -> tuple[str, Any]:
    key = cursor.string("a key", _KEY_BYTES)
    return key, _value(cursor, cursor.number("I", f"the type of {key[:80]!r}"), f"the value of {key[:80]!r}")


def _value(cursor: _Cursor, kind: int, what: str) -> Any:
    if kind == _STRING:
        return cursor.string(what)
    if kind == _ARRAY:
        return _array(cursor, what)
    if kind not in _NUMBERS:
        raise _MalformedError(f"{what} has type {kind}, which there is not")
    return cursor.number(_NUMBERS[kind], what)


def _array(cursor: _Cursor, what: str) -> Any:
    kind, count = cursor.number("I", what), cursor.items(cursor.number("Q", what), what)
    if kind == _STRING:
        return [cursor.string(what) for _ in range(count)]
    if kind not in _NUMBERS:
        raise _MalformedError(f"{what} is an array of type {kind}; expected numbers or strings")
    size = struct.calcsize(f"<{_NUMBERS[kind]}")
    return struct.unpack(f"<{count}{_NUMBERS[kind]}", cursor.take(count * size, what))


def _tensor(cursor: _Cursor) -> tuple[str, Tensor]:
    name = cursor.string("a tensor's name", _KEY_BYTES)
    dimensions = cursor.number("I", "the number of dimensions")
    if not 1 <= dimensions <= _DIMENSIONS:
        raise _MalformedError(f"tensor {name[:80]!r} has {dimensions} dimensions; expected 1 to {_DIMENSIONS}")
    shape = tuple(cursor.number("Q", "a dimension") for _ in range(dimensions))
    kind, offset = cursor.number("I", "a tensor's type"), cursor.number("Q", "an offset")
    if kind not in _BLOCKS:
        raise _MalformedError(f"tensor {name[:80]!r} has type {kind}, which is not known here")
    block, width = _BLOCKS[kind]
    if shape[0] % block:
        raise _MalformedError(f"tensor {name[:80]!r} has rows of {shape[0]:,}; expected a multiple of {block}")
    return name, Tensor(shape, kind, offset, math.prod(shape) // block * width)
