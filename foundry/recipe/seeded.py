"""Random draws of mergekit's functions out of a generator of their own.

mergekit draws from torch's one global generator, so what a tensor gets depends on the tensors before it, and two
threads would disturb each other. Inside `seeded` a draw depends on the recipe's seed and the tensor's name alone.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Let torch's draws in this thread come from a generator seeded for this tensor.

    Args:
        seed: The recipe's.
        name: The tensor's.
    """
    import torch

    generator = torch.Generator().manual_seed(tensor_seed(seed, name))
    with _drawing()(generator):
        yield


def tensor_seed(seed: int, name: str) -> int:
    """The seed of a tensor's own generator: the first 63 bits of SHA-256 over the recipe's seed and its name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") >> 1


@cache
def _drawing() -> Any:
    import torch
    from torch.overrides import TorchFunctionMode

    def bernoulli(shares: Any, *, generator: torch.Generator) -> Any:
        """The same bits as torch's own, from the same draws, in a quarter of its time."""
        return torch.rand(shares.shape, generator=generator).lt_(shares).to(shares.dtype)

    draws: Mapping[Any, Any] = {torch.bernoulli: bernoulli, torch.randint: torch.randint}

    class Drawing(TorchFunctionMode):
        """Gives each draw the generator; a mode holds for one thread alone."""

        def __init__(self, generator: torch.Generator) -> None:
            super().__init__()
            self.generator = generator

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = dict(kwargs or {})
            if func in draws:
                return draws[func](*args, **given, generator=self.generator)
            return func(*args, **given)

    return Drawing
