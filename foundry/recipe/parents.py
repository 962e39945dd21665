"""A parent: an adapter or a full model with its lot, seen to be intact and of the same base as the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from foundry import console, lot
from foundry.errors import DataError
from foundry.recipe.adapter import CONFIG, Adapter
from foundry.recipe.places import folder_of, model_folder
from foundry.recipe.vocabulary import same_template, same_vocabulary
from foundry.recipe.weights import Weights
from foundry.records import BaseModel, Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

_MODEL = "model/"


@dataclass(frozen=True)
class Parent:
    """What a fusion takes from one model.

    Attributes:
        name: What it is called in report and verdict.
        path: Its folder.
        content: Its adapter or its weights.
        lot: Its lot number; without a lot, `sha256:` and the digest of its files.
        key: The setting that names it.
    """

    name: str
    path: Path
    content: Adapter | Weights
    lot: str
    key: str

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
        return Checkpoint(self.path, self.kind, base, {}, "", lot=self.lot)


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
    place = folder_of(path, key)
    folder = model_folder(place, key)
    root = lot.home(folder)
    record = _intact(root, folder) if (root / lot.LOT).is_file() else None
    content = Adapter.of(folder) if (folder / CONFIG).is_file() else Weights.of(folder)
    number = str(record["lot"]) if record else f"sha256:{_digest(folder)}"
    parent = Parent(_name(root, place), folder, content, number, key)
    _same_base(parent, record, base)
    same_vocabulary(folder, base.path, key)
    same_template(folder, base.path, key)
    if same_sizes:
        _same_shapes(parent, weights, base)
    return parent


def _name(root: Path, place: Path) -> str:
    """The job that made it, or what its folder is called."""
    try:
        told = yaml.safe_load((root / "manifest.yaml").read_text(encoding="utf-8"))
        return str(told["job_id"])
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return place.parent.name if place.name == "model" else place.name


def _intact(root: Path, folder: Path) -> Mapping[str, Any]:
    """The lot of a run or release, whose files are those that it lists."""
    record = lot.read(root)
    files = {n: sha for n, sha in record["contents"]["files"].items() if n.startswith(_MODEL)}
    for name, sha in files.items():
        path = folder / name.removeprefix(_MODEL)
        if not path.is_file() or lot.digest_file(path) != sha:
            what = "differs from" if path.is_file() else "is missing, says"
            raise DataError(f"{path}: {what} {root / lot.LOT}; foundry verify {root} says more")
    if not files or lot.digest(record["contents"]) != record.get("lot"):
        raise DataError(f"{root / lot.LOT}: not the lot of a model; foundry verify {root} says more")
    return record


def _digest(folder: Path) -> str:
    """One digest over the files that make a parent without a lot."""
    wanted = (".safetensors", ".json", ".jinja", ".model")
    names = [path for path in sorted(folder.iterdir()) if path.suffix in wanted and path.name != lot.INTACT]
    return lot.digest({path.name: lot.digest_file(path) for path in names})


def _same_base(parent: Parent, record: Mapping[str, Any] | None, base: BaseModel) -> None:
    """See that a parent was made from this base: by its lot, by the weights of the folder that it names, by a name."""
    here = f"{base.name} (weights {_short(base.files)})"
    if record is not None:
        told = record["contents"].get("base") or {}
        if lot.weight_digests(told.get("files", {})) != lot.weight_digests(base.files):
            made_from = f"{told.get('name')} (weights {_short(told.get('files', {}))})"
            raise DataError(f"{parent.key}: {parent.name} was made from {made_from}, not from {here}; set model=…")
        return
    if not isinstance(parent.content, Adapter):
        return
    named = parent.content.base_name
    if named and Path(named).resolve() == base.path:
        return
    if named and Path(named).is_dir():
        files = {path.name: lot.digest_file(path) for path in Path(named).glob("*.safetensors")}
        if lot.weight_digests(files) != lot.weight_digests(base.files):
            raise DataError(f"{parent.key}: {parent.name} belongs to {named} (weights {_short(files)}), not to {here}")
    elif named != base.name:
        said = f"names {named} as its base" if named else "names no base"
        console.warn(f"{parent.key}: {parent.name} {said} and has no lot; only its shapes say that it fits {here}")


def _short(files: Mapping[str, str]) -> str:
    return lot.digest(sorted(lot.weight_digests(files)))[: lot.SHORT]


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
