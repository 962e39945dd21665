"""SHA-256 of rows, files and manifests, and the lot number made from them.

A lot number is the SHA-256 over what went into an artefact and the artefact itself. Files that carry the
number (model card, verdict, report) cannot be part of it; `seal` records their digests beside it.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from foundry.errors import DataError
from foundry.run import write_json

LOT = "lot.json"
INTACT = "intact.json"
"""Written last into a folder: the digest of each of its files; a folder without it is half-written."""
SHORT = 12
_LIMIT = 64 * 2**20
_PART, _PATH = 120, 1000
"""Characters of a file's name and of a path; what is longer may be too long for a disk."""
_LIBRARIES = (
    "model-foundry",
    "torch",
    "transformers",
    "trl",
    "peft",
    "mergekit",
    "datasets",
    "tokenizers",
    "accelerate",
    "pyarrow",
    "bitsandbytes",
    "unsloth",
    "unsloth_zoo",
)


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8. Equal values give equal bytes.

    Raises:
        DataError: The value has a NaN, an infinity, a lone surrogate, or something that JSON has not.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"a value has no canonical JSON: {error}") from None


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def weight_digests(files: Mapping[str, str]) -> set[str]:
    """Of a folder's digests by name, those of its weights: by them two bases are known to be the same."""
    return {sha for name, sha in files.items() if name.endswith(".safetensors")}


def home(folder: Path) -> Path:
    """The run directory or release that a folder with weights is the `model/` of; the folder itself if it is none's."""
    return folder.parent if folder.name == "model" and (folder.parent / LOT).is_file() else folder


def digest_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of a multiset of rows: it does not depend on their order, but counts repeats."""
    total = hashlib.sha256()
    for row in sorted(hashlib.sha256(canonical(row)).digest() for row in rows):
        total.update(row)
    return total.hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(folder: Path, leave_out: Sequence[str] = (), blobs: Path | None = None) -> dict[str, str]:
    """SHA-256 of every file below a folder by relative path, two files at a time.

    Args:
        folder: The folder.
        leave_out: Files that are not wanted.
        blobs: A folder whose files may be linked to, as in a cache of a model hub.

    Raises:
        DataError: A symbolic link or something else that is no plain file lies in the folder.
    """
    names = [name for name in sorted(plain_files(folder, blobs)) if name not in leave_out]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(lambda name: digest_file(folder / name), names), strict=True))


def mark_intact(folder: Path) -> None:
    """Write, last of all, the digest of each file into a folder."""
    write_json(folder / INTACT, digest_folder(folder, leave_out=(INTACT,)))


def is_intact(folder: Path) -> bool:
    """Whether a folder was marked, and its files are all as they were then."""
    try:
        expected = json.loads((folder / INTACT).read_text(encoding="utf-8"))
        return bool(expected) and digest_folder(folder, leave_out=(INTACT,)) == expected
    except (OSError, ValueError, DataError):
        return False


def hub_blobs(folder: Path) -> Path | None:
    """The folder that the files of a hub cache's snapshot are links into; None for any other folder.

    Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
    """
    return folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else None


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises where links go in a circle


def plain_files(folder: Path, blobs: Path | None = None) -> Iterator[str]:
    """The files below a folder, by relative path.

    Args:
        folder: The folder.
        blobs: A folder whose files may be linked to.

    Raises:
        DataError: A symbolic link or something else that is no plain file lies in it.
    """
    for path in folder.rglob("*"):
        blob = blobs is not None and path.is_symlink() and _real(path).parent == _real(blobs)
        if (path.is_symlink() and not blob) or not (path.is_file() or path.is_dir()):
            raise DataError(f"{path}: expected a plain file, found a link or a device; remove it")
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def make(
    *,
    dataset: Mapping[str, Any],
    settings: Mapping[str, Any],
    files: Mapping[str, str],
    base: Mapping[str, Any] | None = None,
    seed: int | None = None,
    hardware: Mapping[str, Any] | None = None,
    parents: Sequence[str] = (),
) -> dict[str, Any]:
    """Put a lot together: its `contents`, and the `lot` number that is their digest.

    Args:
        dataset: Digests of the rows at each stage.
        settings: The resolved manifest.
        files: The digest of each file of the artefact, by path relative to the run directory.
        base: The base model's name and the digest of each of its files; None without one.
        seed: The seed of the run; None where each component has its own.
        hardware: What the machine is, where it can change a result.
        parents: Lot numbers of the artefacts it was made from.
    """
    contents = {
        "dataset": dict(dataset),
        "manifest": digest(settings),
        "base": dict(base or {}),
        "files": dict(files),
        "seed": seed,
        "libraries": libraries(),
        "git_commit": git_commit(),
        "hardware": dict(hardware or {}),
        "parents": list(parents),
    }
    return {"lot": digest(contents), "contents": contents, "sealed": {}}


def seal(folder: Path, names: Iterable[str]) -> None:
    """Record in `folder`/lot.json the digests of the files that carry the lot number.

    Args:
        folder: A run directory with a lot.json.
        names: Files relative to it; those that are not there are left out.
    """
    lot = read(folder)
    lot["sealed"] = {name: digest_file(folder / name) for name in names if (folder / name).is_file()}
    write_json(folder / LOT, lot)


def read(folder: Path) -> dict[str, Any]:
    """Read the lot.json of a folder.

    Raises:
        DataError: It is missing or not what `make` writes.
    """
    path = folder / LOT
    try:
        if path.stat().st_size > _LIMIT:
            raise DataError(f"{path}: expected {_LIMIT:,} bytes at most; the lot cannot be verified")
        lot: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a run directory or a release") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not valid JSON; the lot cannot be verified") from None
    shape = isinstance(lot, dict) and isinstance(lot.get("contents"), dict) and isinstance(lot.get("sealed"), dict)
    if not shape or not isinstance(lot["contents"].get("files"), dict) or not isinstance(lot.get("lot"), str):
        raise DataError(f"{path}: expected lot, contents and sealed; the lot cannot be verified")
    wrong = [name for name, sha in _named(lot) if not inside(name) or not isinstance(sha, str)]
    wrong += [name for name in ("dataset", "base") if not isinstance(lot["contents"].get(name, {}), dict)]
    if wrong:
        raise DataError(f"{path}: {wrong[0][:80]!r}: expected digests of files inside the folder")
    return lot


def _named(lot: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from lot["contents"]["files"].items()
    yield from lot["sealed"].items()


def inside(name: str) -> bool:
    """Whether a name is a plain relative path that cannot leave the folder it is joined to."""
    parts = name.split("/")
    whole = all(part not in {"", ".", ".."} and len(part) <= _PART and part.isprintable() for part in parts)
    return whole and "\\" not in name and len(name) <= _PATH


def libraries() -> dict[str, str]:
    """The versions of the libraries that decide what comes out, and of Python."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the checkout that the job is run from, `-dirty` added where tracked files differ."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None
