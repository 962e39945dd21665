"""A model that is there already: a run directory, a release, a folder of an adapter or of a model.

Training, examinations and merges all look such a path over here.
"""

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
from foundry.loading import quantized
from foundry.records import BaseModel, Checkpoint
from foundry.safety import ADAPTER_CONFIG, need_safetensors, read_json

_MANIFEST, _CONFIG, _MODEL = "manifest.yaml", "config.json", "model/"


@dataclass(frozen=True)
class Existing:
    """What was found at a path.

    Attributes:
        path: The path as it was given.
        root: The run, release or folder that it belongs to.
        folder: The folder with the weights.
        kind: Whether these are an adapter's or a whole model's.
        record: The lot.json of its run or release, None without one.
        key: The setting that names it, for messages; empty without one.
    """

    path: Path
    root: Path
    folder: Path
    kind: Literal["adapter", "full"]
    record: Mapping[str, Any] | None
    key: str = ""

    @property
    def lot(self) -> str:
        """Its lot number, empty without one."""
        return str(self.record["lot"]) if self.record else ""

    @property
    def name(self) -> str:
        """The job that made it, or what its folder is called."""
        made = (_settings(self.root / _MANIFEST, resolve=False) or {}).get("job_id")
        return str(made or (self.path.parent.name if self.path.name == "model" else self.path.name))

    @property
    def settings(self) -> Mapping[str, Any] | None:
        """The manifest.yaml of its run or release, references resolved; None without one.

        Raises:
            DataError: It cannot be read.
        """
        return _settings(self.root / _MANIFEST, resolve=True)

    @property
    def base_name(self) -> str:
        """The name of the base that an adapter is for, empty if it names none."""
        if self.record:
            return str(self.record["contents"].get("base", {}).get("name", ""))
        if self.kind == "full":
            return ""
        config = read_json(self.folder / ADAPTER_CONFIG, "an adapter's settings")
        if not isinstance(config, Mapping):
            raise DataError(f"{self._told}: {ADAPTER_CONFIG}: expected an object")
        return str(config.get("base_model_name_or_path") or "")

    @property
    def _told(self) -> str:
        return f"{self.key}: {self.path}" if self.key else str(self.path)

    def checkpoint(self, base: BaseModel, *, own_base: bool = False) -> Checkpoint:
        """Describe it as a checkpoint of a base.

        Args:
            base: The base at hand.
            own_base: Whether the base that its manifest describes is taken in the place of another one.

        Raises:
            DataError: It is not what its lot says, or was made from another base.
        """
        self.need_intact()
        if own_base and self._made_from(base) is False:
            base = self._own_base()
        self._need_base(base)
        return Checkpoint(self.folder, self.kind, base, {}, "", lot=self.lot, quantized=self.held(base))

    def held(self, base: BaseModel) -> str:
        """How the base was held while an adapter was trained, as its run's manifest and the base tell."""
        method = (_settings(self.root / _MANIFEST, resolve=False) or {}).get("method")
        adapter = method.get("adapter") if isinstance(method, Mapping) else None
        asked = adapter.get("quantize") if isinstance(adapter, Mapping) else None
        return quantized(base.path, str(asked) if asked else None) if self.kind == "adapter" else ""

    def need_intact(self) -> None:
        """See that its files are those that its lot lists.

        Raises:
            DataError: They are not.
        """
        if self.record is None:
            return
        files = {n: sha for n, sha in self.record["contents"]["files"].items() if n.startswith(_MODEL)}
        remedy = f"foundry verify {self.root} says more"
        if not files:
            raise DataError(f"{self.root / lot.LOT}: not the lot of a model; {remedy}")
        for name, sha in files.items():
            path = self.folder / name.removeprefix(_MODEL)
            if not path.is_file() or lot.digest_file(path) != sha:
                what = "differs from" if path.is_file() else "is missing, says"
                raise DataError(f"{path}: {what} {self.root / lot.LOT}; {remedy}")

    def _base_files(self, base: BaseModel) -> Mapping[str, str] | None:
        """The digests of the base that it was made from: of its lot, or the folder that it names; None if untold."""
        if self.record is not None:
            told = self.record["contents"].get("base", {}).get("files", {})
            return told if isinstance(told, Mapping) else {}
        if not self.base_name or not Path(self.base_name).is_dir():
            return None
        if Path(self.base_name).resolve() == base.path:
            return base.files
        return {path.name: lot.digest_file(path) for path in Path(self.base_name).glob("*.safetensors")}

    def _made_from(self, base: BaseModel) -> bool | None:
        """Whether it was made from this base's weights; None where nothing tells."""
        files = self._base_files(base)
        return None if files is None else lot.weight_digests(files) == lot.weight_digests(base.files)

    def _need_base(self, base: BaseModel) -> None:
        made = self._made_from(base)
        if made is False:
            told = f"{self.base_name} (weights {_short(self._base_files(base) or {})})"
            here = f"{base.name} (weights {_short(base.files)})"
            raise DataError(f"{self._told}: was made from {told}, not from {here}; set model=… to its base")
        if made is None and self.kind == "adapter" and self.base_name != base.name:
            said = f"names {self.base_name} as its base" if self.base_name else "names no base"
            console.warn(f"{self._told}: {said} and has no lot; it is tried on {base.name}")

    def _own_base(self) -> BaseModel:
        node = (self.settings or {}).get("model")
        if not isinstance(node, Mapping) or TARGET not in node:
            raise DataError(f"{self._told}: has no manifest.yaml that says what its base is; set model=… to it")
        source = cast("Any", component(node, "model"))
        if not hasattr(source, "fetch"):
            raise DataError(f"{self._told}: manifest.yaml: model: expected a model, found {node[TARGET]}")
        return cast("BaseModel", source.fetch())


def existing(path: Path, key: str = "") -> Existing:
    """Look what lies at a path; nothing is opened by a library, and no weight is read.

    Args:
        path: A run directory, a release, or the folder of an adapter or a model.
        key: The setting that names it, for messages.

    Raises:
        DataError: No adapter and no model with safetensors weights, or a lot.json that was changed.
    """
    told = f"{key}: {path}" if key else str(path)
    folder = next((place for place in (path / "model", path) if _kind(place)), None)
    if folder is None:
        found = "no adapter_config.json or config.json, here or in model/" if path.exists() else "nothing"
        hint = "; the run has not finished" if (path / _MANIFEST).is_file() else ""
        expected = "expected a run directory, a release, or the folder of an adapter or a model"
        raise DataError(f"{told}: {found}; {expected}{hint}")
    kind = _kind(folder) or "full"
    need_safetensors(folder, "adapter_model*.safetensors" if kind == "adapter" else "*.safetensors")
    root = lot.home(folder)
    record = _record(root)
    plain = record is not None or kind == "adapter"
    list(lot.plain_files(folder, None if plain else lot.hub_blobs(folder)))  # a link could bring any file along
    return Existing(path, root, folder, kind, record, key)


def _record(root: Path) -> Mapping[str, Any] | None:
    if not (root / lot.LOT).is_file():
        return None
    record = lot.read(root)
    if lot.digest(record["contents"]) != record.get("lot"):
        raise DataError(f"{root / lot.LOT}: was changed since it was written; foundry verify {root} says more")
    return record


def _kind(folder: Path) -> Literal["adapter", "full"] | None:
    if (folder / ADAPTER_CONFIG).is_file():
        return "adapter"
    return "full" if (folder / _CONFIG).is_file() else None


def _settings(path: Path, *, resolve: bool) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=resolve)
    except (OSError, YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else None


def _short(files: Mapping[str, str]) -> str:
    return lot.digest(sorted(lot.weight_digests(files)))[: lot.SHORT]
