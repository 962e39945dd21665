"""The JSON schema of a job takes what foundry takes, and refuses misspelt keys."""

import copy
import json
import re

import pytest
from omegaconf import OmegaConf

import foundry
from foundry.config import CONF, shipped_targets
from foundry.schema import manifest_schema

SCHEMA = manifest_schema()
CURATION = manifest_schema("curate")
MERGE = manifest_schema("merge")
DEFINITIONS = CURATION["$defs"] | SCHEMA["$defs"]
TYPES = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}


def valid(value, schema=SCHEMA):
    """The part of JSON schema that pydantic uses; jsonschema itself is no dependency."""
    if "$ref" in schema:
        return valid(value, DEFINITIONS[schema["$ref"].removeprefix("#/$defs/")])
    if "anyOf" in schema and not any(valid(value, option) for option in schema["anyOf"]):
        return False
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    return within(value, schema) and (not isinstance(value, (dict, list)) or inside(value, schema))


def within(value, schema):
    bounds = {
        "const": lambda wanted: value == wanted,
        "enum": lambda wanted: value in wanted,
        "minimum": lambda wanted: value >= wanted,
        "maximum": lambda wanted: value <= wanted,
        "exclusiveMinimum": lambda wanted: value > wanted,
        "exclusiveMaximum": lambda wanted: value < wanted,
        "minLength": lambda wanted: len(value) >= wanted,
        "minProperties": lambda wanted: len(value) >= wanted,
        "minItems": lambda wanted: len(value) >= wanted,
        "pattern": lambda wanted: re.search(wanted, value) is not None,
    }
    return all(holds(schema[name]) for name, holds in bounds.items() if name in schema)


def inside(value, schema):
    if isinstance(value, list):
        return all(valid(item, schema.get("items", {})) for item in value)
    known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
    rest = [item for name, item in value.items() if name not in known]
    if rest and more is False:
        return False
    return all(valid(value[name], known[name]) for name in known if name in value) and all(
        valid(item, more) for item in rest if isinstance(more, dict)
    )


MANIFEST = foundry.compose(["publish.tag=v1"]).record()


def changed(place, value):
    manifest = copy.deepcopy(MANIFEST)
    *parents, last = place.split(".")
    node = manifest
    for name in parents:
        node = node[name]
    node[last] = value
    return manifest


@pytest.mark.parametrize(
    "overrides", [[], ["method=full"], ["method=dora"], ["data=jsonl", "data.path=x"], ["examine=none", "publish=none"]]
)
def test_manifests_are_valid(overrides):
    assert valid(foundry.compose(overrides).record())


def test_references_are_valid(monkeypatch):
    monkeypatch.setenv("FOUNDRY_NUMBER", "12")
    assert valid(foundry.compose(['compute.seed="${oc.decode:${oc.env:FOUNDRY_NUMBER}}"']).record())
    assert valid(changed("publish.name", "${job_id}"))


def test_a_job_that_says_only_how_it_departs_is_valid():
    experiment = {
        "defaults": [{"override /method": "dora"}],
        "hydra": {"mode": "MULTIRUN"},
        "method": {"adapter": {"rank": 8}},
        "examine": {"gates": {"logic_score": {"min": 0.5}}},
    }
    assert valid(experiment)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("metod", {}),
        ("method.lerning_rate", 1),
        ("method.adapter.rnk", 8),
        ("examine.metrics.logic_score.batchsize", 8),
        ("examine.gates.logic_score.min_gian", 0.1),
        ("data.task", 3),
        ("method.adapter.rank", 0),
        ("method.adapter.rank", "8"),
        ("method.scheduler", "cosin"),
        ("job_id", "../up"),
        ("data._target_", "os.system"),
        ("data._target_", "foundry.prune.exact.Exact"),
        ("data", 3),
    ],
)
def test_what_foundry_refuses_is_not_valid(place, value):
    assert not valid(changed(place, value))


def test_every_group_and_every_shipped_component_is_in_it():
    groups = {path.name for path in CONF.iterdir() if path.is_dir()} - {"hydra", "experiment"}
    assert groups <= SCHEMA["properties"].keys() | CURATION["properties"].keys() | MERGE["properties"].keys()
    groups &= SCHEMA["properties"].keys()
    assert shipped_targets() <= SCHEMA["$defs"].keys()
    assert all(valid(MANIFEST[group], SCHEMA["properties"][group]) for group in groups)


def test_every_reference_leads_somewhere():
    found = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(SCHEMA)))
    assert found <= SCHEMA["$defs"].keys()
    assert all(node for name, node in SCHEMA["$defs"].items() if name in found)


def test_the_command_prints_it(capsys):
    from foundry.__main__ import main

    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


def test_a_curation_has_a_schema_of_its_own(capsys):
    from foundry.__main__ import main

    assert valid(foundry.compose(["data.path=x", "out=y"], "curate").record(), CURATION)
    assert not valid({"method": {}}, CURATION)
    assert not valid({"shard_megabytes": 0}, CURATION)
    assert main(["schema", "curate"]) == 0
    assert json.loads(capsys.readouterr().out) == CURATION


def given(node):
    """The node without what is left to the user."""
    items = {name: given(value) if isinstance(value, dict) else value for name, value in node.items()}
    return {name: value for name, value in items.items() if value not in ("???", {})}


def test_shipped_yaml_is_valid():
    for path in CONF.glob("*/*.yaml"):
        if path.parent.name in SCHEMA["properties"]:
            node = OmegaConf.to_container(OmegaConf.load(path))
            node.pop("defaults", None)
            node = given(node)
            assert valid({path.parent.name: node}), path
