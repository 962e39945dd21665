"""The run directory: reserved by one atomic mkdir, and the files that a run writes into it."""

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from foundry.errors import HardwareError


def reserve(root: str, job_id: str) -> str:
    """Make a run directory `root/job_id/<UTC time>-<random>` that no other job can share.

    Raises:
        HardwareError: The folder cannot be written.
    """
    parent = Path(root) / job_id
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            place = parent / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}-{secrets.token_hex(3)}"
            try:
                place.mkdir()
            except FileExistsError:
                continue
            return str(place)
    except OSError as error:
        raise HardwareError(
            f"{parent}: cannot make a run directory: {error.strerror}; run from a folder you may write to"
        ) from error


def discard(run_dir: Path) -> None:
    """Remove a run directory that nothing was written into, and the folders above it that are left empty."""
    for folder in (run_dir, run_dir.parent, run_dir.parent.parent):
        if any(folder.iterdir()):
            return
        folder.rmdir()


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or none of it."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def rendered(value: Any) -> str:
    """Write `value` as readable JSON, keys in their order."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    write_atomic(path, rendered(value))


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_yaml(path: Path, value: Any) -> None:
    """Write `value` as YAML, atomically, keys in their order."""
    write_atomic(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def cache_root() -> Path:
    """Where converted models and other things that can be made again are kept.

    `FOUNDRY_CACHE`, else `$XDG_CACHE_HOME/foundry`, else `~/.cache/foundry`.
    """
    named = os.environ.get("FOUNDRY_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "foundry"
