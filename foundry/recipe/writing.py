"""Safetensors files whose tensors are written one at a time, in any order and from any thread.

The bytes are those that safetensors' own writer gives for the same tensors, which it would want in memory all at once.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry.recipe.weights import BYTES, TORCH
from foundry.run import write_json

if TYPE_CHECKING:
    from torch import Tensor

SHARD = 5 * 10**9
"""Bytes of tensors in a file, at most; a larger tensor has a file of its own."""


@dataclass(frozen=True)
class Spot:
    """Where a tensor goes: an open file, the offset in it, and the kind of number."""

    file: int
    offset: int
    kind: str

    def write(self, tensor: "Tensor") -> None:
        """Write a tensor's numbers, cast to the kind of this spot."""
        import torch

        cast = tensor.to(getattr(torch, TORCH[self.kind])).contiguous().reshape(-1)
        numbers: Any = cast.view(torch.uint8).numpy() if cast.numel() else b""
        view = memoryview(numbers)
        done = 0
        while done < len(view):
            done += os.pwrite(self.file, view[done:], self.offset + done)


@contextmanager
def opened(
    folder: Path, shapes: Mapping[str, Sequence[int]], kinds: Mapping[str, str], shard: int = SHARD
) -> Iterator[Mapping[str, Spot]]:
    """Make the files for these tensors, and give the spot of each.

    Args:
        folder: Where the files go.
        shapes: The shape of each tensor.
        kinds: The kind of number of each, as safetensors names them.
        shard: Bytes of tensors in a file, at most.
    """
    sizes = {name: BYTES[kinds[name]] * _count(shape) for name, shape in shapes.items()}
    order = sorted(shapes, key=lambda name: (-BYTES[kinds[name]], name))
    files = _files(order, sizes, shard)
    names = ["model.safetensors"] if len(files) == 1 else [_shard_name(n, len(files)) for n in range(len(files))]
    descriptors, spots = [], {}
    try:
        for file, held in zip(names, files, strict=True):
            descriptor = os.open(folder / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            descriptors.append(descriptor)
            begin = _header(descriptor, held, shapes, kinds, sizes)
            for name in held:
                spots[name] = Spot(descriptor, begin, kinds[name])
                begin += sizes[name]
            os.truncate(descriptor, begin)
        if len(files) > 1:
            places = {name: file for file, held in zip(names, files, strict=True) for name in held}
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(places.items()))}
            write_json(folder / "model.safetensors.index.json", index)
        yield spots
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _count(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _shard_name(number: int, count: int) -> str:
    return f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def _files(order: Sequence[str], sizes: Mapping[str, int], shard: int) -> list[list[str]]:
    files: list[list[str]] = [[]]
    filled = 0
    for name in order:
        if files[-1] and filled + sizes[name] > shard:
            files.append([])
            filled = 0
        files[-1].append(name)
        filled += sizes[name]
    return files


def _header(
    descriptor: int,
    held: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    kinds: Mapping[str, str],
    sizes: Mapping[str, int],
) -> int:
    """Write what says where the tensors are, and give the offset of the first."""
    told: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name in held:
        ends = [begin, begin + sizes[name]]
        told[name] = {"dtype": kinds[name], "shape": list(shapes[name]), "data_offsets": ends}
        begin = ends[1]
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    os.pwrite(descriptor, head, 0)
    return len(head)
