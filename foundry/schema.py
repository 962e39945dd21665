"""`foundry schema`: the JSON schema of a job, so that editors complete and check YAML files."""

from collections.abc import Iterator
from typing import Any

from foundry.config import TARGET, Component, resolve, shipped_targets
from foundry.curate import CurateManifest
from foundry.merge import MergeManifest
from foundry.replay import Manifest
from foundry.train import TrainManifest

_JOBS: dict[str, type[Manifest]] = {"train": TrainManifest, "merge": MergeManifest, "curate": CurateManifest}

_REF = "#/$defs/{model}"
_INTERPOLATION = {"type": "string", "pattern": r"\$\{"}


def manifest_schema(entry: str = "train") -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a manifest.yaml, and for `train` and `merge` of the files under conf/experiment.

    Wherever a job holds a component it accepts the settings of any that a shipped YAML file names, and
    wherever it holds a value, an interpolation.
    """
    schema = _JOBS[entry].model_json_schema(ref_template=_REF)
    definitions = schema.pop("$defs")
    classes = [resolve(target, TARGET) for target in sorted(shipped_targets())]
    for cls in classes:
        definitions |= _definitions(cls)
    for base in _below(Component):
        if base.__name__ in definitions:
            refs = [{"$ref": f"#/$defs/{_name(cls)}"} for cls in classes if issubclass(cls, base)]
            definitions[base.__name__] = {"anyOf": refs, "description": base.__doc__}
    for model in (schema, *definitions.values()):
        for name, setting in model.get("properties", {}).items():
            model["properties"][name] = {"anyOf": [setting, _INTERPOLATION]}
    hydras = {"defaults": {"type": "array"}, "hydra": {"type": "object"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "foundry job",
        "type": "object",
        "properties": schema["properties"] | hydras,
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def _below(cls: type[Component]) -> Iterator[type[Component]]:
    for inner in cls.__subclasses__():
        yield inner
        yield from _below(inner)


def _name(cls: type[Component]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _definitions(cls: type[Component]) -> dict[str, Any]:
    """A component's schema with its `_target_`, and those of the models below it."""
    schema = cls.model_json_schema(ref_template=_REF)
    below = schema.pop("$defs", {})
    schema["properties"] = {TARGET: {"const": _name(cls)}, **schema.get("properties", {})}
    schema.pop("required", None)  # an option of the group, or the defaults, may give the rest
    return {**below, _name(cls): schema}
