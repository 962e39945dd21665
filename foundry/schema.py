"""`foundry schema`: the JSON schema of a job, so that editors complete and check YAML files."""

from typing import Any

import yaml

from foundry.config import CONF, TARGET, Component, resolve

GROUPS = ("data", "prune", "model", "method", "compute", "examine", "package", "publish")


def manifest_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of manifest.yaml and of the files under conf/experiment.

    Each group accepts the settings of any component that a shipped option names.
    """
    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = {
        "job_id": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"},
        "dry_run": {"type": "boolean"},
        "resume": {"type": ["string", "null"]},
        "manifest": {"type": ["string", "null"]},
        "defaults": {"type": "array", "description": "Hydra's defaults list"},
    }
    for group in GROUPS:
        classes = _classes(group)
        for cls in classes:
            definitions.update(_definition(cls))
        properties[group] = {"anyOf": [{"$ref": f"#/$defs/{_name(cls)}"} for cls in classes]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "foundry job",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def _classes(group: str) -> list[type[Component]]:
    nodes = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((CONF / group).glob("*.yaml"))]
    targets = sorted({node[TARGET] for node in nodes if TARGET in node})
    return [resolve(target, f"{group}.{TARGET}") for target in targets]


def _name(cls: type[Component]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _definition(cls: type[Component]) -> dict[str, Any]:
    """A component's schema with its `_target_`; models below it move up beside it."""
    schema = cls.model_json_schema(ref_template="#/$defs/{model}")
    below = schema.pop("$defs", {})
    schema["properties"] = {TARGET: {"const": _name(cls)}, **schema.get("properties", {})}
    schema.pop("required", None)  # an option of the group, or the defaults, may give the rest
    return {**below, _name(cls): schema}
