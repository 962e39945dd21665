"""A parent: an adapter or a full model with its lot, seen to be intact and of the same base as the others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundry import console, lot
from foundry.errors import DataError
from foundry.existing import existing
from foundry.loading import STORED
from foundry.recipe.adapter import Adapter
from foundry.recipe.places import folder_of
from foundry.recipe.vocabulary import same_template, same_vocabulary
from foundry.recipe.weights import Weights
from foundry.records import BaseModel, Checkpoint

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Parent:
    """What a fusion takes from one model.

    Attributes:
        name: What it is called in report and verdict.
        path: Its folder.
        content: Its adapter or its weights.
        lot: Its lot number; without a lot, `sha256:` and the digest of its files.
        key: The setting that names it.
        quantized: How its base was held while it was trained, as in a checkpoint.
    """

    name: str
    path: Path
    content: Adapter | Weights
    lot: str
    key: str
    quantized: str = ""

    @property
    def kind(self) -> Literal["adapter", "full"]:
        """Whether it is an adapter or a full model."""
        return "adapter" if isinstance(self.content, Adapter) else "full"

    def changes(self, weight: str) -> bool:
        """Whether it may differ from the base in this weight."""
        return not isinstance(self.content, Adapter) or weight in self.content.parts

    def version(self, weight: str, base: "Tensor") -> "Tensor":
        """Its own version of a weight of the base, in fp32."""
        if isinstance(self.content, Adapter):
            return self.content.applied(weight, base)
        return self.content.tensor(weight).float()

    def checkpoint(self, base: BaseModel) -> Checkpoint:
        """What an examination needs to know of it."""
        return Checkpoint(self.path, self.kind, base, {}, "", lot=self.lot, quantized=self.quantized)


def find(paths: Sequence[str], base: BaseModel) -> list[Parent]:
    """Find the parents and see that they belong to the base.

    Args:
        paths: Run directories, releases, or folders of an adapter or a model, local or as URIs.
        base: The model that they have in common.

    Raises:
        ConfigError: There is nothing at a path.
        DataError: A parent is not what its lot says, or does not belong to the base.
    """
    weights = Weights.of(base.path)
    found = [found_at(path, f"recipe.adapters.{number}.path", base, weights) for number, path in enumerate(paths)]
    return named_apart(found)


def named_apart(found: Sequence[Parent]) -> list[Parent]:
    """The parents with a number behind each name that several have."""
    names = [parent.name for parent in found]
    return [
        replace(parent, name=f"{parent.name}-{names[:number].count(parent.name) + 1}")
        if names.count(parent.name) > 1
        else parent
        for number, parent in enumerate(found)
    ]


def found_at(path: str, key: str, base: BaseModel, weights: Weights, *, same_sizes: bool = True) -> Parent:
    """Find one parent and see that it belongs to the base.

    Args:
        path: Where it is.
        key: The setting that says so, for messages.
        base: The model that all parents have in common.
        weights: The base's.
        same_sizes: Whether its weights must have the base's shapes.

    Raises:
        ConfigError: There is nothing there.
        DataError: It is not what its lot says, or does not belong to the base.
    """
    found = existing(folder_of(path, key), key)
    folder = found.folder
    content = Adapter.of(folder) if found.kind == "adapter" else Weights.of(folder)
    held = found.checkpoint(base).quantized
    if held not in {"", STORED}:
        told = f"learnt on a base in 4 bits ({held}), and is added to {base.name} as that is stored"
        console.warn(f"{key}: {path}: {told}")
    parent = Parent(found.name, folder, content, found.lot or f"sha256:{_digest(folder)}", key, held)
    same_vocabulary(folder, base.path, key)
    same_template(folder, base.path, key)
    if same_sizes:
        _same_shapes(parent, weights, base)
    return parent


def _digest(folder: Path) -> str:
    """One digest over the files that make a parent without a lot."""
    wanted = (".safetensors", ".json", ".jinja", ".model")
    names = [path for path in sorted(folder.iterdir()) if path.suffix in wanted and path.name != lot.INTACT]
    return lot.digest({path.name: lot.digest_file(path) for path in names})


def _same_shapes(parent: Parent, weights: Weights, base: BaseModel) -> None:
    content, expected = parent.content, weights.shapes
    shapes = {name: content.shape(name) for name in content.parts} if isinstance(content, Adapter) else content.shapes
    if not isinstance(content, Adapter):
        tied = {"lm_head.weight"} - expected.keys()
        missing = sorted(expected.keys() - shapes.keys())
        if missing:
            raise DataError(f"{parent.key}: {parent.path}: {missing[0]} is missing, which {base.name} has")
        shapes = {name: shape for name, shape in shapes.items() if name not in tied}
    for name, shape in shapes.items():
        if name not in expected:
            raise DataError(f"{parent.key}: {parent.path}: has {name}, which {base.name} has not")
        if tuple(shape) != tuple(expected[name]):
            found, wanted = (" × ".join(map(str, one)) for one in (shape, expected[name]))
            raise DataError(f"{parent.key}: {parent.path}: {name} is {found}, in {base.name} it is {wanted}")
