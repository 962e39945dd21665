"""A model that is there already: a run directory, a release, a folder of an adapter or of a model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from foundry import console, lot
from foundry.config import TARGET, component
from foundry.errors import DataError
from foundry.records import BaseModel, Checkpoint

_ADAPTER, _CONFIG = "adapter_config.json", "config.json"


@dataclass(frozen=True)
class Existing:
    """What was found at a path.

    Attributes:
        path: The path as it was given.
        root: The run, release or folder that it belongs to.
        folder: The folder with the weights.
        kind: Whether these are an adapter's or a whole model's.
        record: The lot.json of its run or release, None without one.
        settings: The manifest.yaml of its run or release, references resolved, None without one.
    """

    path: Path
    root: Path
    folder: Path
    kind: Literal["adapter", "full"]
    record: Mapping[str, Any] | None
    settings: Mapping[str, Any] | None

    @property
    def base_name(self) -> str:
        """The name of the base that an adapter is for, empty if it names none."""
        if self.record:
            return str(self.record["contents"].get("base", {}).get("name", ""))
        return (
            str(_object(self.folder / _ADAPTER).get("base_model_name_or_path") or "") if self.kind == "adapter" else ""
        )

    def checkpoint(self, base: BaseModel, *, own_base: bool = False) -> Checkpoint:
        """Describe it as a checkpoint of a base.

        Args:
            base: The base at hand.
            own_base: Whether the base that its manifest describes is taken in the place of another one.

        Raises:
            DataError: It was made from another base.
        """
        if own_base and self._made_from(base) is False:
            base = self._own_base()
        if self._made_from(base) is False:
            told = self.record["contents"]["base"] if self.record else {}
            raise DataError(
                f"{self.path}: was made from {told.get('name')}, not from {base.name} as it is here "
                "(the weights' SHA-256 differ); set model=… to its base"
            )
        if self.kind == "adapter" and self.record is None and self.base_name != base.name:
            console.warn(f"{self.path}: names {self.base_name or 'no base'} and has no lot; it is tried on {base.name}")
        return Checkpoint(self.folder, self.kind, base, {}, "", lot=str(self.record["lot"]) if self.record else "")

    def _made_from(self, base: BaseModel) -> bool | None:
        """Whether its lot names this base's weights; None where there is no lot to tell."""
        if self.record is None:
            return None
        files = self.record["contents"].get("base", {}).get("files", {})
        return lot.weight_digests(files) == lot.weight_digests(base.files)

    def _own_base(self) -> BaseModel:
        node = (self.settings or {}).get("model")
        if not isinstance(node, Mapping) or TARGET not in node:
            raise DataError(f"{self.path}: has no manifest.yaml that says what its base is; set model=… to it")
        source = cast("Any", component(node, "model"))
        if not hasattr(source, "fetch"):
            raise DataError(f"{self.path}: manifest.yaml: model: expected a model, found {node[TARGET]}")
        return cast("BaseModel", source.fetch())


def existing(path: Path) -> Existing:
    """Look what lies at a path; nothing is opened by a library.

    Raises:
        DataError: No adapter and no model with safetensors weights.
    """
    folder = next((place for place in (path / "model", path) if _kind(place)), None)
    if folder is None:
        found = "nothing" if not path.exists() else "no adapter_config.json or config.json, here or in model/"
        raise DataError(f"{path}: {found}; expected a run directory, a release, or the folder of an adapter or a model")
    if not list(folder.glob("*.safetensors")):
        raise DataError(f"{folder}: no safetensors weights; expected *.safetensors")
    root = lot.home(folder)
    record = lot.read(root) if (root / lot.LOT).is_file() else None
    return Existing(
        path, root, folder, _kind(folder) or "full", _sound(root, record), _settings(root / "manifest.yaml")
    )


def _sound(root: Path, record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if record is not None and lot.digest(record["contents"]) != record.get("lot"):
        raise DataError(f"{root / lot.LOT}: was changed since it was written; foundry verify {root} says more")
    return record


def _kind(folder: Path) -> Literal["adapter", "full"] | None:
    if (folder / _ADAPTER).is_file():
        return "adapter"
    return "full" if (folder / _CONFIG).is_file() else None


def _settings(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else None


def _object(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected an object")
    return found
