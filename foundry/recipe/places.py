"""Where parents are: run directories, releases, folders of an adapter or of a model, here or at any URI."""

import posixpath
from pathlib import Path
from typing import Any

from foundry import lot
from foundry.cache import made_once
from foundry.errors import ConfigError, DataError
from foundry.existing import existing

_WANTED = (".safetensors", ".json", ".jinja", ".model", ".yaml", ".bin", ".pt", ".pth", ".ckpt", ".pkl")


def folder_of(path: str, key: str) -> Path:
    """The folder of this machine that a path or URI stands for; a remote one is fetched into the cache once.

    Args:
        path: As a person wrote it.
        key: The setting that it stands in, for messages.

    Raises:
        ConfigError: There is no such folder, or a package for this kind of URI is missing.
        DataError: It cannot be fetched.
    """
    if _remote(path):
        return _fetched(path, key)
    place = Path(path.removeprefix("file://"))
    if not place.is_dir():
        what = "a file" if place.exists() else "nothing"
        raise ConfigError(f"{key}: found {what} at {path!r}, expected a run directory, a release or a model folder")
    return place.resolve()


def look(path: str, key: str) -> None:
    """See that there is an adapter or a model at a path of this machine; a URI is not asked.

    Raises:
        ConfigError: There is nothing there.
        DataError: It is no adapter and no model with safetensors weights.
    """
    if not _remote(path):
        existing(folder_of(path, key), key)


def _remote(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def _fetched(uri: str, key: str) -> Path:
    from fsspec.core import url_to_fs

    try:
        system, place = url_to_fs(uri)
        found = _listed(system, place.rstrip("/"))
    except ImportError as error:
        raise ConfigError(f"{key}: {uri}: {error}; for s3://, pip install 'model-foundry[s3]'") from None
    except Exception as error:  # a store has errors of its own
        raise DataError(f"{key}: {uri}: cannot be listed: {_line(error)}") from error
    if not found:
        raise ConfigError(f"{key}: found nothing at {uri!r}, expected a run directory, a release or a model folder")

    def make(folder: Path) -> None:
        try:
            for name in found:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                system.get_file(posixpath.join(place.rstrip("/"), name), str(folder / name))
        except Exception as error:
            raise DataError(f"{key}: {uri}: cannot be fetched: {_line(error)}") from error
        lot.mark_intact(folder)

    return made_once("parents", lot.digest({"uri": uri, "files": found})[:32], make, lot.is_intact)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _listed(system: Any, place: str) -> dict[str, str]:
    """The files that a parent is made of, by their path below it, each with what tells one version from another."""
    found = {}
    for name, info in system.find(place, detail=True).items():
        inner = name.removeprefix(place).lstrip("/")
        top = inner.split("/")
        if inner.endswith(_WANTED) and (len(top) == 1 or (top[0] == "model" and len(top) == 2)):
            found[inner] = ":".join(str(info.get(key)) for key in ("ETag", "size", "LastModified", "mtime"))
    return found
