"""A YAML file of mergekit's, run as it is: slices, gradients, filters and all."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from foundry.errors import ConfigError, DataError, HardwareError
from foundry.existing import existing
from foundry.hardware import Machine, free_memory, peak_memory, size
from foundry.loading import quiet
from foundry.mistakes import listed, nearest
from foundry.recipe import Prepared, Recipe
from foundry.recipe.fusing import LIBRARIES, SPARE, copy_tokenizer, fusion_of, whole_model
from foundry.recipe.parents import Parent, found_at, named_apart
from foundry.recipe.places import folder_of
from foundry.recipe.stream import need_mergekit, one_thread
from foundry.recipe.weights import Weights
from foundry.records import BaseModel, Checkpoint


class MergekitFile(Recipe):
    """What a file of mergekit's says, by mergekit itself; no fast path, but the same checks and the same whole result.

    Attributes:
        path: The file. Models in it are folders, runs or releases, `base+adapter` among them; `model.name` is the base.
    """

    path: str = Field(min_length=1)

    def look(self) -> None:
        """See that the file is there and is one of mergekit's; its models are looked for when the base is known."""
        _content(Path(self.path))

    def prepare(self, base: BaseModel, machine: Machine) -> Prepared:  # noqa: ARG002
        """Read the file, see that mergekit knows every key in it, and find its models."""
        need_mergekit()
        content = _content(Path(self.path))
        places: dict[str, Parent | None] = {}
        resolved = _located(content, base, places)
        parents = named_apart([parent for parent in places.values() if parent is not None])
        if not parents:
            raise ConfigError(f"recipe.path: {self.path} names no model beside {base.name}")
        _check(resolved, self.path)
        weights = sum(entry.bytes for entry in Weights.of(base.path).stored.values())
        needs = {"memory": LIBRARIES + 3 * weights, "disk": SPARE + (len(parents) + 1) * weights}
        if needs["memory"] > (free := free_memory("cpu")):
            raise HardwareError(f"about {size(needs['memory'])} of memory needed by mergekit, {size(free)} free")
        found = {parent.name: parent.checkpoint(base) for parent in parents}
        return Prepared(base, found, needs, (resolved, parents))

    def fuse(self, prepared: Prepared, machine: Machine, run_dir: Path) -> Checkpoint:  # noqa: ARG002
        """Let mergekit write the model, on one thread, and take its card out again."""
        begun = time.perf_counter()
        content, parents = prepared.plan
        with whole_model(run_dir) as (folder, files):
            self._merge(content, folder)
            for name in ("README.md", "mergekit_config.yml"):
                (folder / name).unlink(missing_ok=True)
            if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").is_file():
                copy_tokenizer(prepared.base, folder)
        metrics = {"merge_seconds": time.perf_counter() - begun, "peak_memory_bytes": float(peak_memory("cpu"))}
        fusion = fusion_of(f"{content['merge_method']} of {Path(self.path).name}", parents, [{} for _ in parents])
        return Checkpoint(run_dir / "model", "full", prepared.base, metrics, "", fusion=fusion, files=files)

    def _merge(self, content: Mapping[str, Any], folder: Path) -> None:
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        quiet()
        merged = folder.with_suffix(".adapters")  # removed with the scratch folder, also after a kill
        options = MergeOptions(
            random_seed=self.seed, lora_merge_cache=str(merged), write_model_card=False, quiet=True, copy_tokenizer=True
        )
        try:
            with one_thread():
                run_merge(MergeConfiguration.model_validate(content), str(folder), options)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"recipe.path: {self.path}: mergekit: {' '.join(str(error).split())[:300]}") from error
        finally:
            shutil.rmtree(merged, ignore_errors=True)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"recipe.path: {path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or "merge_method" not in content:
        raise ConfigError(f"recipe.path: {path}: expected a mapping with a merge_method, as mergekit-yaml takes it")
    return {str(key): value for key, value in content.items()}


_REFERENCES = {"model", "base_model", "tokenizer_source", "source"}


def _located(node: Any, base: BaseModel, places: dict[str, Parent | None], key: str = "") -> Any:
    """The content with each model as an absolute folder; what was found is kept by its name in the file."""
    if isinstance(node, Mapping):
        return {
            name: _reference(value, base, places, f"{key}{name}")
            if name in _REFERENCES and isinstance(value, str)
            else _located(value, base, places, f"{key}{name}.")
            for name, value in node.items()
        }
    if isinstance(node, list):
        return [_located(item, base, places, f"{key}{number}.") for number, item in enumerate(node)]
    return node


def _reference(text: str, base: BaseModel, places: dict[str, Parent | None], key: str) -> str:
    if text in {"union", "base"} and not key.endswith("model"):
        return text
    name, plus, lora = text.partition("+")
    where = f"recipe.path: {key}"
    first = base.path if name == base.name else existing(folder_of(name, where), where).folder
    if first.resolve() == base.path.resolve():
        first = base.path
        places.setdefault(name, None)
    elif name not in places:
        places[name] = found_at(name, where, base, Weights.of(base.path), same_sizes=False)
    if not plus:
        return str(first)
    if lora not in places:
        places[lora] = found_at(lora, where, base, Weights.of(base.path))
    found = places[lora]
    return f"{first}+{found.path if found else first}"


def _check(content: Mapping[str, Any], path: str) -> None:
    """See that mergekit will not pass a key over in silence, and that it takes the file.

    Raises:
        ConfigError: Naming the key.
    """
    from mergekit import config
    from mergekit.merge_methods import registered_methods

    methods = {method.spec.name: method.spec for method in registered_methods()}
    chosen = methods.get(str(content["merge_method"]))
    if chosen is None:
        near = nearest(str(content["merge_method"]), methods)
        raise ConfigError(f"recipe.path: {path}: merge_method: no method {content['merge_method']!r}{near}")
    parameters = {parameter.name for parameter in chosen.parameters}

    def known(node: Any, model: type[Any], key: str) -> None:
        for name, value in node.items() if isinstance(node, Mapping) else ():
            if name not in model.model_fields:
                near = f"{nearest(str(name), model.model_fields)} (allowed here: {listed(model.model_fields)})"
                raise ConfigError(f"recipe.path: {path}: {key}{name}: unknown key{near}")
            if name == "parameters":
                for unknown in sorted(map(str, set(value or {}) - parameters)):
                    near = f"{nearest(unknown, parameters)} (allowed here: {listed(parameters)})"
                    raise ConfigError(f"recipe.path: {path}: {key}parameters.{unknown}: unknown key{near}")
            below = _BELOW.get((model.__name__, str(name)))
            for number, item in enumerate(_items(value) if below else ()):
                known(item, getattr(config, below or ""), f"{key}{name}.{number}.")

    known(content, config.MergeConfiguration, "")
    try:
        config.MergeConfiguration.model_validate(dict(content))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"recipe.path: {path}: {' '.join(str(error).split())[:300]}") from None


_BELOW = {
    ("MergeConfiguration", "models"): "InputModelDefinition",
    ("MergeConfiguration", "slices"): "OutputSliceDefinition",
    ("MergeConfiguration", "modules"): "OutputModuleDefinition",
    ("OutputModuleDefinition", "models"): "InputModelDefinition",
    ("OutputModuleDefinition", "slices"): "OutputSliceDefinition",
    ("OutputSliceDefinition", "sources"): "InputSliceDefinition",
}
"""What kind of mapping mergekit reads below which key."""


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else list(value) if isinstance(value, list) else []
