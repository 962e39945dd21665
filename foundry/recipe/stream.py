"""The way from parents to a fused model, one weight of the base at a time.

`mergekit-yaml` first writes each adapter merged into the base to a folder, then reads all of these models back. Here an
adapter is applied to a weight when that weight is fused, and a weight that no parent changes is copied. Each weight is
computed in fp32 on one thread, with random draws of its own, and several threads share the weights between them: so
neither their number nor their order changes a byte.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from foundry import console
from foundry.errors import ConfigError, DataError
from foundry.recipe.extraction import Factors, factors
from foundry.recipe.parents import Parent
from foundry.recipe.seeded import seeded
from foundry.recipe.weights import FLOATS, Weights
from foundry.recipe.writing import opened

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Formula:
    """A method of mergekit's with everything but the tensors.

    Attributes:
        method: What mergekit calls it.
        arguments: Its parameters under mergekit's names; a list has a value for each parent.
        model_is_input: Whether the base is an input beside the parents' versions.
        base_index: Which input mergekit is told to be the base; None for none.
        whole: Whether weights that no parent changes go through it as well, since it would change them.
        seed: The recipe's.
    """

    method: str
    arguments: Mapping[str, Any]
    model_is_input: bool
    base_index: int | None
    whole: bool
    seed: int

    def __call__(self, name: str, base: "Tensor", versions: Sequence["Tensor"]) -> "Tensor":
        """Fuse the versions of one weight, all in fp32 and of one shape.

        Raises:
            DataError: mergekit cannot, or what comes out is not finite.
        """
        import torch
        from mergekit.merge_methods import merge_tensors

        inputs = [base, *versions] if self.model_is_input else list(versions)
        try:
            with torch.no_grad(), seeded(self.seed, name):
                fused: Tensor = merge_tensors(
                    inputs, self.method, parameters=dict(self.arguments), base_index=self.base_index, name=name
                )
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{name}: mergekit cannot fuse it by {self.method}: {' '.join(str(error).split())}"
            ) from error
        if fused.numel() and not all(math.isfinite(end) for end in torch.aminmax(fused)):
            raise DataError(f"{name}: {self.method} gives numbers that are not finite; choose other settings")
        return fused


@dataclass(frozen=True)
class Fusible:
    """Base, parents that count, and the formula; gives each fused weight.

    Attributes:
        weights: The base's.
        parents: Those that can change the outcome.
        formula: What is computed.
        workers: How many weights are fused at once.
    """

    weights: Weights
    parents: Sequence[Parent]
    formula: Formula
    workers: int = 1

    def changes(self, name: str) -> bool:
        """Whether a weight goes through the formula; else it is the base's own, to the bit."""
        if self.weights.kinds[name] not in FLOATS or not self.parents:
            return False
        return self.formula.whole or any(parent.changes(name) for parent in self.parents)

    def fused(self, name: str, stored: "Tensor") -> "Tensor | None":
        """One fused weight in fp32; None where it is the base's own."""
        if not self.changes(name):
            return None
        base = stored.float()
        return self.formula(name, base, [parent.version(name, base) for parent in self.parents])

    def write_full(self, folder: Path) -> dict[str, float]:
        """Write the fused model's weights; gives the counts to report."""
        shapes = self.weights.shapes
        with opened(folder, shapes, self.weights.kinds) as spots:

            def work(name: str) -> bool:
                stored = self.weights.tensor(name)
                fused = self.fused(name, stored)
                spots[name].write(stored if fused is None else fused)
                return fused is not None

            changed = sum(self._each(work).values())
        return {"weights_fused": changed, "weights_copied": len(shapes) - changed}

    def extracted(self, rank: int) -> dict[str, Factors]:
        """The factors of each weight that changed."""

        def work(name: str) -> Factors | None:
            stored = self.weights.tensor(name)
            fused = self.fused(name, stored)
            return None if fused is None else factors(name, fused - stored.float(), rank)

        return {name: found for name, found in self._each(work).items() if found is not None}

    def _each(self, work: Callable[[str], T]) -> dict[str, T]:
        """Do the work for every weight, the largest first, several at once."""
        order = sorted(self.weights.shapes, key=lambda name: -math.prod(self.weights.shapes[name]))
        with one_thread(), ThreadPoolExecutor(self.workers, "fuse") as pool:
            futures = [pool.submit(work, name) for name in order]
            try:
                tracked = console.track(futures, "merge", f"{len(self.parents)} parents")
                return {name: future.result() for name, future in zip(order, tracked, strict=True)}
            finally:
                for future in futures:
                    future.cancel()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let each operation of torch use one thread: sums then add up in one order, however many processors there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def need_mergekit() -> None:
    """See that mergekit is here.

    Raises:
        ConfigError: It is not.
    """
    from importlib.util import find_spec

    if find_spec("mergekit") is None:
        raise ConfigError("recipe: mergekit is not installed; pip install 'model-foundry[merge]'")
