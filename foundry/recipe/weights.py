"""The tensors of a folder of safetensors: looked at through their headers, read one at a time, in any thread."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry.errors import DataError
from foundry.loading import need_bitsandbytes, read_config
from foundry.safety import need_safetensors

if TYPE_CHECKING:
    from torch import Tensor

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""The kinds of numbers that are read, as safetensors names them, and their size."""

TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
FLOATS = {"F64", "F32", "F16", "BF16"}
_HEADER_LIMIT = 100 * 2**20
_FOUR_BIT = ".quant_state.bitsandbytes__"


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: the file, the offset of its first byte in it, its kind of number and its shape."""

    file: Path
    offset: int
    kind: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return BYTES[self.kind] * math.prod(self.shape)


def entries(folder: Path, pattern: str = "*.safetensors") -> dict[str, Entry]:
    """Every tensor of a folder's safetensors files, by name; no number is read.

    Raises:
        DataError: There are none, only pickled ones, or a file is broken.
    """
    found: dict[str, Entry] = {}
    for path in need_safetensors(folder, pattern):
        found |= header(path)
    return found


def header(path: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file.

    Raises:
        DataError: It is broken.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 0 < length <= min(_HEADER_LIMIT, size - 8):
                raise ValueError(f"a header of {length} bytes")
            content: Mapping[str, Any] = json.loads(file.read(length))
        found = {
            name: Entry(path, 8 + length + told["data_offsets"][0], told["dtype"], tuple(told["shape"]))
            for name, told in content.items()
            if name != "__metadata__"
        }
        for name, entry in found.items():
            if entry.kind not in BYTES:
                raise ValueError(f"{name} has numbers of kind {entry.kind}")
            if entry.bytes != content[name]["data_offsets"][1] - content[name]["data_offsets"][0]:
                raise ValueError(f"{name} has another size than its shape")
            if entry.offset + entry.bytes > size:
                raise ValueError("it was cut short")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
        raise DataError(f"{path}: not a safetensors file that can be read ({error}); fetch it again") from None
    return found


def read(entry: Entry) -> "Tensor":
    """Read one tensor into memory of its own.

    Raises:
        DataError: The file became shorter.
    """
    import torch

    tensor = torch.empty(entry.shape, dtype=getattr(torch, TORCH[entry.kind]))
    numbers: Any = tensor.reshape(-1).view(torch.uint8).numpy() if entry.bytes else b""
    room = memoryview(numbers)
    descriptor = os.open(entry.file, os.O_RDONLY)
    try:
        done = 0
        while done < entry.bytes:
            count = os.preadv(descriptor, [room[done:]], entry.offset + done)
            if not count:
                raise DataError(f"{entry.file}: became shorter while it was read")
            done += count
    finally:
        os.close(descriptor)
    return tensor


@dataclass(frozen=True)
class Weights:
    """The weights of a full model, those stored in 4 bits by bitsandbytes as the plain numbers that they stand for.

    Attributes:
        folder: The model folder.
        stored: Every tensor in its files.
    """

    folder: Path
    stored: Mapping[str, Entry]

    @classmethod
    def of(cls, folder: Path) -> "Weights":
        """Look a model folder's weights up.

        Raises:
            DataError: They cannot be read safely, or are quantised in a way that is not undone here.
            HardwareError: They are in 4 bits, and bitsandbytes is not installed.
        """
        weights = cls(folder, entries(folder))
        told = read_config(folder).get("quantization_config")
        if told is not None and not weights.four_bit:
            kind = told.get("quant_method", "unknown") if isinstance(told, Mapping) else "unknown"
            raise DataError(f"{folder}: weights quantised by {kind} cannot be fused; take the model in full precision")
        if weights.four_bit:
            need_bitsandbytes()
        return weights

    @cached_property
    def four_bit(self) -> dict[str, dict[str, str]]:
        """For each 4-bit tensor the names of the tensors that its numbers are made again from."""
        states = [name for name in self.stored if _FOUR_BIT in name]
        names = {state.partition(_FOUR_BIT)[0] for state in states}
        return {name: {n: n for n in self.stored if n.startswith(f"{name}.")} for name in sorted(names)}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, 4-bit ones as they are made again."""
        beside = {part for parts in self.four_bit.values() for part in parts}
        plain = {name: entry.shape for name, entry in self.stored.items() if name not in beside}
        return plain | {name: self._state(name)[0] for name in self.four_bit}

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of number of each tensor, of 4-bit ones that in which they are made again."""
        return {name: self._state(name)[1] if name in self.four_bit else self.stored[name].kind for name in self.shapes}

    def tensor(self, name: str) -> "Tensor":
        """Read one tensor as it is stored; a 4-bit one is made again."""
        if name not in self.four_bit:
            return read(self.stored[name])
        import torch
        from bitsandbytes.functional import QuantState, dequantize_4bit

        parts = {part: read(self.stored[part]) for part in self.four_bit[name]}
        state = QuantState.from_dict(parts, device=torch.device("cpu"))
        return dequantize_4bit(read(self.stored[name]), state).to(state.dtype)

    def _state(self, name: str) -> tuple[tuple[int, ...], str]:
        """The shape and kind of number that a 4-bit tensor is made again in; bitsandbytes keeps them as JSON."""
        part = next(n for n in self.four_bit[name] if _FOUR_BIT in n)
        told = json.loads(bytes(read(self.stored[part]).tolist()))
        kinds = {f"{value}": key for key, value in TORCH.items()}
        return tuple(told["shape"]), kinds[str(told["dtype"]).removeprefix("torch.")]
