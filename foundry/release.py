"""A release as files: what is in it, its `release.json`, and the pointer to it that a run directory keeps.

`release.json` lists the SHA-256 of every other file of the release, and its own `digest` is over all of that; it is
written last everywhere, so a folder without it is no release.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry.errors import DataError
from foundry.lot import LOT, digest, inside
from foundry.records import Release, plain
from foundry.run import rendered, write_json

RELEASE = "release.json"
SIGNATURE = "model.sig"
"""An OpenSSF model signature over every other file, `release.json` included; in no list, since it signs the list."""

FOLDERS = ("model", "package")
PAPERS = (LOT, "manifest.yaml", "verdict.json", "report.html", "loss.csv")
GITATTRIBUTES = "* -text\n" + "".join(
    f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in (".safetensors", ".gguf", ".onnx", ".npz")
)
"""What a release in git has beside its own files: weights in git-lfs, and no line ending is ever changed."""

_LIMIT = 32 * 2**20
_SHA = re.compile(r"[0-9a-f]{64}")
_TELLING = ("model/README.md", "package/eval_log.md", "package/SHA256SUMS")
_POINTED = ("uri", "tag", "lot", "digest", "files", "removed", "notice")


def described(name: str, tag: str, lot: str, files: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """The content of a `release.json`, its digest last."""
    manifest = {"name": name, "tag": tag, "lot": lot, **more, "files": dict(files)}
    return {**manifest, "digest": digest(manifest)}


def parsed(text: str | bytes, where: str) -> dict[str, Any]:
    """Read the content of a `release.json` that may come from anywhere.

    Args:
        text: The file's content.
        where: The place it comes from, for messages.

    Raises:
        DataError: It is not what `described` writes, or names files outside of its folder.
    """
    if len(text) > _LIMIT:
        raise DataError(f"{where}: {len(text):,} bytes; expected a {RELEASE} of {_LIMIT:,} bytes at most")
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not valid JSON; expected a release") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise DataError(f"{where}: expected a release with its files")
    for key in ("name", "tag"):
        if not isinstance(manifest.get(key), str):
            raise DataError(f"{where}: {key}: found {_cut(manifest.get(key))}, expected text")
    digests = {key: manifest.get(key) for key in ("lot", "digest")}
    for name, sha in (digests | {f"files: {name}": sha for name, sha in manifest["files"].items()}).items():
        if not (isinstance(sha, str) and _SHA.fullmatch(sha)):
            raise DataError(f"{where}: {name[:80]}: found {_cut(sha)}, expected a SHA-256")
    outside = [name for name in manifest["files"] if not inside(name)]
    if outside:
        raise DataError(f"{where}: files: {_cut(outside[0])}: expected a path inside the release")
    return manifest


def read(folder: Path) -> dict[str, Any]:
    """Read the `release.json` of a folder.

    Raises:
        DataError: It is missing or broken.
    """
    path = folder / RELEASE
    try:
        if path.stat().st_size > _LIMIT:
            raise DataError(f"{path}: expected {_LIMIT:,} bytes at most")
        return parsed(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a release") from None


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two releases are of one lot and hold the same artefact.

    What a person reads (report, verdict, card, loss table, log of the packaging) tells times too, so two runs of one
    job may differ in it.
    """
    return bool(one["lot"] == other["lot"]) and _artefact(one) == _artefact(other)


def _artefact(manifest: Mapping[str, Any]) -> dict[str, str]:
    told = {*PAPERS, *_TELLING}
    return {name: sha for name, sha in manifest["files"].items() if name not in told}


def text(manifest: Mapping[str, Any]) -> bytes:
    """A `release.json` as it is written."""
    return rendered(manifest).encode()


def write_pointer(run_dir: Path, release: Release) -> None:
    """Write into a run directory where its release is, and which of its own files were taken away for it."""
    content = plain(release)
    write_json(run_dir / RELEASE, {key: content[key] for key in _POINTED})


def pointer(folder: Path) -> Mapping[str, Any]:
    """The pointer that a run directory keeps; empty if there is none, or if the file is a release's own."""
    try:
        content = json.loads((folder / RELEASE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("uri"), str) else {}


def _cut(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"
