"""The provenance chain: Release → Verdict → Checkpoint → Pruned → Dataset, each with the hash that names it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry import lot, release
from foundry.errors import DataError


def chain(folder: Path) -> list[tuple[str, str]]:
    """The steps from a release, or a run directory, back to the rows that it was made from.

    Args:
        folder: Where lot.json is; what is said is what it and its neighbours say, verified or not.

    Returns:
        A name and a line for each step, the last one first.

    Raises:
        DataError: There is no lot that could be read.
    """
    record = lot.read(folder)
    contents = record["contents"]
    rows, base = _mapping(contents.get("dataset")), _mapping(contents.get("base"))
    steps = [*_released(folder), *_judged(folder)]
    steps.append(("lot", f"{record.get('lot')}, {len(contents['files'])} files"))
    if base:
        steps.append(("base", f"{base.get('name')}, sha256 {lot.digest(_mapping(base.get('files')))}"))
    names = {"pruned": "pruned", "train": "data", "eval": "held out"}
    steps += [(name, f"sha256 {rows[key]}") for key, name in names.items() if rows.get(key)]
    parents = contents.get("parents")
    return [*steps, *(("parent", f"lot {parent}") for parent in parents or [])] if isinstance(parents, list) else steps


def _released(folder: Path) -> list[tuple[str, str]]:
    try:
        manifest = release.read(folder)
    except DataError:
        return []
    return [("release", f"{manifest['name']} {manifest['tag']}, sha256 {manifest['digest']}")]


def _judged(folder: Path) -> list[tuple[str, str]]:
    path = folder / "verdict.json"
    try:
        verdict = _mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return []
    word = "passed" if verdict.get("passed") is True else "failed"
    return [("verdict", f"{word if verdict.get('examined') else 'not examined'}, sha256 {lot.digest_file(path)}")]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
