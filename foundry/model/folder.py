"""A model folder: checked before anything in it is opened by a library, then digested."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry.errors import DataError
from foundry.loading import read_config
from foundry.lot import digest, digest_folder
from foundry.records import BaseModel
from foundry.safety import PICKLED, check_model, need_safetensors

_HEADER_LIMIT = 100 * 2**20


def base_from_folder(folder: Path, name: str, blobs: Path | None = None) -> BaseModel:
    """Check a folder and describe the model in it.

    Args:
        folder: The folder.
        name: What the model is called.
        blobs: A folder whose files the folder's may be links to.

    Raises:
        DataError: There are no safetensors weights, no config or tokenizer, or there is code in it.
    """
    read_config(folder)
    check_model(folder)
    weights = need_safetensors(folder)
    if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").is_file():
        raise DataError(f"{folder}: no tokenizer.json; expected the model's tokenizer beside its weights")
    found = digest_folder(folder, blobs=blobs)
    files = {k: v for k, v in found.items() if Path(k).suffix not in PICKLED and not k.startswith(".")}
    return BaseModel(name, folder, files, digest(files), sum(_parameters(path) for path in weights))


def _parameters(path: Path) -> int:
    """Count the numbers in a safetensors file from its header alone."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(_HEADER_LIMIT, path.stat().st_size):
                raise ValueError(f"a header of {length} bytes")
            header: Mapping[str, Any] = json.loads(file.read(length))
        return sum(_product(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise DataError(f"{path}: not a safetensors file ({error}); fetch the model again") from None


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
