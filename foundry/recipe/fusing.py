"""What all typed recipes share: their settings, the checks before any work, and a result that appears whole."""

import math
import os
import secrets
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from foundry import console, lot
from foundry.config import Settings
from foundry.errors import HardwareError
from foundry.hardware import Machine, free_memory, peak_memory, size
from foundry.loading import read_config
from foundry.recipe import Prepared, Recipe
from foundry.recipe.extraction import write_adapter
from foundry.recipe.parents import Parent, find
from foundry.recipe.places import look
from foundry.recipe.stream import Formula, Fusible, need_mergekit
from foundry.recipe.weights import BYTES, Weights
from foundry.records import BaseModel, Checkpoint, Fusion
from foundry.run import clear_abandoned, sync, write_json

LIBRARIES = 600 * 2**20
"""Bytes that torch and the rest take before a weight is read."""

SPARE = 100 * 2**20
"""Bytes that stay free on the disk beside the weights: tokenizer, report, log."""

_NOT_A_TOKENIZER = ("config.json", "README.md", lot.INTACT, ".safetensors", ".safetensors.index.json")
_SMALL = (".json", ".jinja", ".model", ".txt")


class Input(Settings):
    """A parent.

    Attributes:
        path: A run directory, a release, or the folder of an adapter or a model; here or at any URI.
    """

    path: str = Field(min_length=1)


class Weighted(Input):
    """A parent and how much it counts; the weights need not sum to one.

    Attributes:
        weight: Its factor; negative to take away what it learnt.
    """

    weight: float = Field(1.0, ge=-10, le=10)


class Fusing(Recipe, ABC):
    """A method of mergekit's with typed settings.

    Attributes:
        output: A full model, or an adapter for the base that is extracted from it again.
        rank: The rank of that adapter.
    """

    least: ClassVar[int] = 1
    most: ClassVar[int | None] = None

    output: Literal["full", "adapter"] = "full"
    rank: int | None = Field(None, ge=1, le=4096)

    @property
    @abstractmethod
    def inputs(self) -> Sequence[Input]:
        """The parents, in their order."""

    @abstractmethod
    def formula(self, kept: Sequence[int]) -> Formula:
        """What is computed from the parents of these numbers."""

    def counting(self) -> Sequence[int]:
        """The numbers of the parents that can change the outcome."""
        return range(len(self.inputs))

    def told(self, number: int) -> Mapping[str, Any]:
        """A parent's own settings, for report and model card."""
        return self.inputs[number].model_dump(exclude={"path"})

    @model_validator(mode="after")
    def _suits_the_method(self) -> Self:
        if (self.rank is None) == (self.output == "adapter"):
            raise ValueError("output=adapter and rank go together: set both, such as recipe.rank=16, or neither")
        count, name = len(self.inputs), self.formula(range(len(self.inputs))).method
        if count < self.least or (self.most is not None and count > self.most):
            expected = str(self.least) if self.least == self.most else f"{self.least} or more"
            raise ValueError(f"adapters: found {count}, expected {expected} for {name}")
        return self

    def look(self) -> None:
        """See that each parent's path leads to an adapter or a model."""
        for number, parent in enumerate(self.inputs):
            look(parent.path, f"recipe.adapters.{number}.path")

    def prepare(self, base: BaseModel, machine: Machine) -> Prepared:
        """Find the parents, see that they fit, and that memory is enough for the largest weight."""
        need_mergekit()
        parents = find([parent.path for parent in self.inputs], base)
        weights = Weights.of(base.path)
        if weights.four_bit:
            console.warn(
                f"{base.name} is stored in 4 bits: its weights are made plain numbers again, which are not those that "
                "were quantised; name the model in full precision where it is at hand (model=local model.name=…)"
            )
        kept = self.counting()
        fusible = Fusible(weights, [parents[number] for number in kept], self.formula(kept))
        needs, workers = self._needs(fusible, machine.threads)
        fusible = replace(fusible, workers=workers)
        found = {parent.name: parent.checkpoint(base) for parent in parents}
        return Prepared(base, found, needs, (fusible, parents))

    def _needs(self, fusible: Fusible, threads: int) -> tuple[dict[str, int], int]:
        """Bytes that are needed, and how many weights can be fused at once."""
        weights, parents = fusible.weights, len(fusible.parents)
        sizes = {name: math.prod(shape) for name, shape in weights.shapes.items()}
        times = {name: 2 * parents + 8 if fusible.changes(name) else 2 for name in sizes}  # held in fp32: fused, copied
        heaviest = max(sizes, key=lambda name: sizes[name] * times[name])
        one = 4 * sizes[heaviest] * times[heaviest]
        free = free_memory("cpu")
        workers = min(threads, (free - LIBRARIES) // one)
        if workers < 1:
            raise HardwareError(
                f"about {size(LIBRARIES + one)} of memory needed for a weight of {sizes[heaviest]:,} numbers and "
                f"{parents} parents, {size(free)} free; take fewer parents, or a machine with more memory"
            )
        written = sum(BYTES[weights.kinds[name]] * math.prod(shape) for name, shape in weights.shapes.items())
        return {"memory": LIBRARIES + one * workers, "disk": SPARE + (written if self.output == "full" else 0)}, workers

    def fuse(self, prepared: Prepared, machine: Machine, run_dir: Path) -> Checkpoint:  # noqa: ARG002
        """Fuse weight by weight into `run_dir/model`."""
        begun = time.perf_counter()
        fusible, parents = prepared.plan
        with whole_model(run_dir) as (folder, files):
            if self.output == "full":
                told = fusible.write_full(folder)
                copy_model(prepared.base, folder)
            else:
                told = self._adapter(fusible, prepared.base, folder)
        metrics = {**told, "merge_seconds": time.perf_counter() - begun, "peak_memory_bytes": peak_memory("cpu")}
        fusion = fusion_of(fusible.formula.method, parents, [self.told(number) for number in range(len(parents))])
        return Checkpoint(run_dir / "model", self.output, prepared.base, metrics, "", fusion=fusion, files=files)

    def _adapter(self, fusible: Fusible, base: BaseModel, folder: Path) -> dict[str, float]:
        assert self.rank is not None  # noqa: S101
        found = fusible.extracted(self.rank)
        write_adapter(folder, found, self.rank, base.name)
        copy_tokenizer(base, folder)
        kept, total = (sum(getattr(part, name) for part in found.values()) for name in ("kept", "total"))
        return {"weights_extracted": len(found), "change_kept": math.sqrt(kept / total)}


def fusion_of(method: str, parents: Sequence[Parent], settings: Sequence[Mapping[str, Any]]) -> Fusion:
    """What report and model card say of a fusion."""
    names, lots = [parent.name for parent in parents], [parent.lot for parent in parents]
    return Fusion(method, names, lots, [parent.kind for parent in parents], settings)


@contextmanager
def whole_model(run_dir: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Give a scratch folder that becomes `run_dir/model` by one rename, once every file in it is hashed.

    What earlier jobs left when they were killed is removed first. The digests are in the second value afterwards.
    """
    shelf = run_dir.absolute().parent
    for folder in (*shelf.iterdir(), *(shelf.parent.glob("*/*") if run_dir.name.isdigit() else ())):  # of other sweeps
        if folder.is_dir():
            clear_abandoned(folder, "model")
    scratch = run_dir / f".model-{os.getpid()}-{secrets.token_hex(4)}.part"
    scratch.mkdir()
    files: dict[str, str] = {}
    try:
        yield scratch, files
        sync(scratch)
        files |= lot.digest_folder(scratch)
        scratch.rename(run_dir / "model")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def copy_model(base: BaseModel, folder: Path) -> None:
    """Copy what a model has beside its weights: config, tokenizer, template; its config names no quantisation."""
    copy_tokenizer(base, folder)
    for name in ("config.json", "generation_config.json"):
        if name in base.files:
            shutil.copyfile(base.path / name, folder / name)
    config = dict(read_config(folder))
    if config.pop("quantization_config", None) is not None:
        write_json(folder / "config.json", config)


def copy_tokenizer(base: BaseModel, folder: Path) -> None:
    """Copy tokenizer and chat template."""
    for name in base.files:
        if name.endswith(_SMALL) and (name == "tokenizer_config.json" or not name.endswith(_NOT_A_TOKENIZER)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base.path / name, folder / name)
