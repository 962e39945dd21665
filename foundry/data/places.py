"""Where files are: a local path, a folder or glob of them, or any URI that fsspec knows."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from foundry.data.reading import ENDINGS, reachable
from foundry.errors import ConfigError, DataError

SYNTHESIS = "synthesis://"


@dataclass(frozen=True)
class Place:
    """A file on some file system.

    Attributes:
        name: What a person calls it.
        path: What the file system calls it.
        system: The fsspec file system.
        sha256: What its bytes must come to; None where that is not known.
    """

    name: str
    path: str
    system: Any
    sha256: str | None = None

    def open(self) -> IO[bytes]:
        """Open it for reading bytes.

        Raises:
            DataError: It cannot be opened, or is not the file that it should be.
        """
        with reachable(self.name):
            file: IO[bytes] = self.system.open(self.path, "rb")
            if self.sha256 is not None:
                if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:  # type: ignore[arg-type]
                    raise DataError(f"data.path: {self.name} differs from its lot.json; curate the set again")
                file.seek(0)
            return file


def resolve(path: str, root: str | None) -> str:
    """Find what `synthesis://name` stands for below the root; other paths stand for themselves.

    Raises:
        DataError: No root is configured, or the name leads out of it.
    """
    if not path.startswith(SYNTHESIS):
        return path
    name = path.removeprefix(SYNTHESIS).strip("/")
    if root is None:
        raise DataError(f"data.path: {path}: no root is configured; set data.synthesis_root to a folder or URI")
    if not name or ".." in name.split("/"):
        raise DataError(f"data.path: {path}: expected {SYNTHESIS} and a name below data.synthesis_root={root}")
    return f"{root.rstrip('/')}/{name}"


def find(path: str, root: str | None = None) -> list[Place]:
    """List the files that a path stands for, sorted; of a folder those with an ending that is known, at any depth.

    Args:
        path: A file, folder, glob or URI, or `synthesis://name`: a file or folder, or a file up to its ending.
        root: Where names after `synthesis://` are looked up.

    Raises:
        DataError: There is no such file.
        ConfigError: A package for this kind of URI is not installed.
    """
    uri = resolve(path, root)
    with reachable(path):
        system, place = located(uri, path)
        found = _listed(system, place)
        if not found and path.startswith(SYNTHESIS):
            found = [name for name in system.glob(f"{place}.*") if ENDINGS.search(name)]
        if not found:
            raise DataError(f"data.path: {path}: no such file, and no folder or glob with files of rows")
        return [Place(called(system, name), name, system) for name in sorted(found)]


def located(uri: str, path: str) -> tuple[Any, str]:
    """The file system that a URI names, and what it calls the place; `path` is what a person wrote.

    Raises:
        ConfigError: A package for this kind of URI is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(uri)  # type: ignore[no-any-return]
    except ImportError as error:
        raise ConfigError(f"data.path: {path}: {error}; for s3://, pip install 'model-foundry[s3]'") from None


def _listed(system: Any, place: str) -> list[str]:
    if {"http", "https"} & set(_protocols(system)) or system.isfile(place):
        return [place]  # what looks like a folder or a glob on the web is a page or a query
    if system.isdir(place):
        folder = place.rstrip("/") + "/"
        return [name for name in system.find(place) if ENDINGS.search(name) and not _hidden(name, folder)]
    fixed = re.split(r"[*?[]", place)[0]
    found = system.glob(place, detail=True).items()
    return [name for name, info in found if info["type"] == "file" and not _hidden(name, fixed)]


def _hidden(name: str, given: str) -> bool:
    """Whether it lies as caches and job markers do, `.cache/a.json` or `_delta_log/0.json`, below what was given."""
    return any(part.startswith((".", "_")) for part in name.removeprefix(given).split("/"))


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def called(system: Any, path: str) -> str:
    """A local path relative to here if it lies below, a URI otherwise."""
    if "file" not in _protocols(system):
        return str(system.unstrip_protocol(path))
    place = Path(path)
    return str(place.relative_to(Path.cwd())) if place.is_relative_to(Path.cwd()) else path
