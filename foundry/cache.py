"""Folders that are made once: under a lock, in a scratch folder, made visible by one rename."""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from foundry.errors import HardwareError
from foundry.run import cache_root


def made_once(kind: str, key: str, make: Callable[[Path], None], sound: Callable[[Path], bool] = Path.is_dir) -> Path:
    """Return the cached folder named `key`, calling `make(scratch folder)` if it is not there yet.

    Args:
        kind: The part of the cache that it belongs to, such as `models`.
        key: Says what is in it; another content has another key.
        make: Fills the folder.
        sound: Whether a folder that is there can be used; one that cannot is made again.

    Raises:
        HardwareError: The cache cannot be written.
    """
    from filelock import FileLock

    folder = cache_root() / kind / key
    if sound(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{key}.lock")):
            if not sound(folder):
                _make(folder, make)
    except OSError as error:
        reason = error.strerror or str(error)
        raise HardwareError(f"{folder}: cannot be written: {reason}; free some space or set FOUNDRY_CACHE") from error
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    scratch = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        make(scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    if folder.exists():  # it is broken; whoever has its files open keeps them
        broken = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        folder.rename(broken)
        shutil.rmtree(broken, ignore_errors=True)
    scratch.rename(folder)
