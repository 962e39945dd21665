"""The run directory: reserved by one atomic mkdir, and the files that a run writes into it."""

import errno
import glob
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from foundry.errors import FoundryError, HardwareError


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


def clear_abandoned(folder: Path, stem: str) -> None:
    """Remove the scratch folders `.<stem>-<process id>-<random>…` of processes that were killed."""
    import psutil

    for path in folder.glob(f".{glob.escape(stem)}-*-*"):
        pid = path.name.removeprefix(f".{stem}-").split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def sync(folder: Path) -> None:
    """Bring every file to the disk before a rename makes the folder visible."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


_DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_DISK_WORDS = re.compile(r"\(os error (?:5|13|27|28|30|122)\)|No space left|File too large|PytorchStreamWriter failed")


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Tell a full or forbidden disk in one line, also where a library gives it no type of its own.

    safetensors, tokenizers and torch raise their own errors, a bare Exception or a RuntimeError for it.

    Raises:
        HardwareError: Something could not be written.
    """
    try:
        yield
    except FoundryError:
        raise
    except Exception as error:
        if not (isinstance(error, OSError) and error.errno in _DISK) and not _DISK_WORDS.search(str(error)):
            raise
        reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())[:120]
        raise HardwareError(
            f"{place}: cannot be written: {reason}; free some space, then run the same again"
        ) from error


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
