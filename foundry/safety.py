"""What a folder from elsewhere must not hold, looked at before any library opens a file of it.

A model is data: safetensors and JSON. Whatever would run code, unpickle, import by name or lead out of the folder is
refused, from its name or from a JSON file of bounded size.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry.errors import DataError
from foundry.lot import inside

PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt", ".pickle", ".joblib", ".dill"})
"""Suffixes of files that run code when they are loaded."""

ADAPTER_CONFIG = "adapter_config.json"
JSON_LIMIT = 64 * 2**20
_CONFIGS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    ADAPTER_CONFIG,
)
_IMPORTING = ("auto_map", "auto_mapping", "megatron_config", "custom_generate", "trust_remote_code", "custom_pipelines")
"""Settings by which transformers or peft import a module that the model names."""

_RESUMED = ("numpy.", "_codecs.encode", "collections.OrderedDict", "torch.")


def check_model(folder: Path) -> None:
    """See that a model or adapter folder can be opened safely.

    Raises:
        DataError: It holds code, pickled adapter weights, links, or an index that leads out of it.
    """
    _check_settings(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        if pickled:
            raise DataError(
                f"{folder / pickled[0]}: pickled, which runs code when it is loaded; expected *.safetensors"
            )


def need_safetensors(folder: Path, pattern: str = "*.safetensors") -> list[Path]:
    """The files with a folder's weights.

    Raises:
        DataError: There are none, or only pickled ones.
    """
    found = sorted(folder.glob(pattern))
    if not found:
        pickled = next((path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLED), None)
        what = f"only pickled weights ({pickled}), which can run code" if pickled else "no weights"
        raise DataError(f"{folder}: {what}; expected {pattern}")
    return found


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file that may come from anywhere.

    Args:
        path: The file.
        what: What is expected, for messages.

    Raises:
        DataError: It is missing, larger than `JSON_LIMIT`, nested too deep, or no JSON.
    """
    try:
        size = path.stat().st_size
        if size > JSON_LIMIT:
            raise DataError(f"{path}: {size:,} bytes; expected {what} of {JSON_LIMIT:,} bytes at most")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected {what}") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deep; expected {what}") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None


def _check_settings(folder: Path) -> None:
    for name in _CONFIGS:
        if (folder / name).is_file() or (folder / name).is_symlink():
            _check_config(folder / name)
    for index in sorted(folder.glob("*.index.json")):
        _check_index(index)


def _check_config(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path}: a link to nowhere; expected a plain file")
    config = read_json(path, "a model's settings")
    if not isinstance(config, Mapping):
        raise DataError(f"{path}: expected an object")
    named = [key for key in _IMPORTING if config.get(key)]
    if named:
        raise DataError(f"{path}: has {named[0]}, which runs code from the model; use a model without it")
    kernels = [key for key in ("_attn_implementation", "attn_implementation") if "/" in str(config.get(key) or "")]
    if kernels:
        raise DataError(f"{path}: {kernels[0]} names code to be fetched; use a model without it")
    if path.name == ADAPTER_CONFIG and not isinstance(config.get("peft_type"), str):
        raise DataError(f"{path}: no peft_type; expected an adapter's settings as peft writes them")


def _check_index(path: Path) -> None:
    """An index maps each weight to a safetensors file beside it."""
    index = read_json(path, "an index of weights")
    weights = index.get("weight_map") if isinstance(index, Mapping) else None
    if not isinstance(weights, Mapping) or not weights:
        raise DataError(f"{path}: no weight_map; expected an index of weights")
    for file in {str(file) for file in weights.values()}:
        if not inside(file) or "/" in file or not file.endswith(".safetensors"):
            raise DataError(f"{path}: {file[:80]!r}: expected a safetensors file beside the index")
        if not (path.parent / file).is_file():
            raise DataError(f"{path}: {file[:80]!r} is not there; fetch the model again")


def check_checkpoint(folder: Path) -> None:
    """See that a training checkpoint's pickled state names nothing but arrays and tensors.

    Raises:
        DataError: Loading it would call something else, or it cannot be read.
    """
    from torch.serialization import get_unsafe_globals_in_checkpoint

    _check_settings(folder)
    for path in sorted(folder.iterdir()):
        if path.suffix not in PICKLED or path.name == "training_args.bin":  # nobody loads that one
            continue
        try:
            named = get_unsafe_globals_in_checkpoint(path)
        except Exception as error:  # noqa: BLE001  # a broken file fails in zipfile, struct, pickle or torch
            raise DataError(f"{path}: cannot be read ({type(error).__name__}); resume from another run") from None
        hostile = sorted(name for name in named if not name.startswith(_RESUMED))
        if hostile:
            raise DataError(f"{path}: would call {hostile[0]} when it is loaded; it is no checkpoint of foundry's")
