"""Folders that are made once: under a lock, in a scratch folder, made visible by one rename."""

import shutil
from collections.abc import Callable
from pathlib import Path

from foundry.errors import HardwareError
from foundry.run import cache_root


def made_once(key: str, make: Callable[[Path], None]) -> Path:
    """Return the cached model folder named `key`, calling `make(scratch folder)` if it is not there yet.

    Raises:
        HardwareError: The cache cannot be written.
    """
    from filelock import FileLock

    folder = cache_root() / "models" / key
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{key}.lock")):
            if not folder.is_dir():
                scratch = folder.with_name(f".{key}.part")
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir()
                make(scratch)
                scratch.rename(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise HardwareError(f"{folder}: cannot be written: {reason}; free some space or set FOUNDRY_CACHE") from error
    return folder
