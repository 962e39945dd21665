"""The student as one model: its adapter added to the base's weights in fp32, rounded once to 16 bits."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundry.errors import DataError
from foundry.hardware import Machine
from foundry.loading import load_model, quiet
from foundry.records import Checkpoint

_TOKENIZER = ("tokenizer*", "chat_template*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt")
_DTYPES = {"F16": "float16", "BF16": "bfloat16"}


def student(checkpoint: Checkpoint, machine: Machine) -> Any:
    """The model as it was trained, in fp32: an adapter stays beside its base, 4-bit weights are what they stand for.

    Raises:
        DataError: The adapter is for another base.
        HardwareError: The base is in 4 bits, and bitsandbytes is not installed.
    """
    quiet()
    exact = replace(machine, precision="fp32")
    if checkpoint.kind == "full":
        return load_model(checkpoint.path, exact)
    named = _adapter_config(checkpoint.path).get("base_model_name_or_path")
    if named != checkpoint.base.name:
        raise DataError(f"package: {checkpoint.path}: an adapter for {named}, not for {checkpoint.base.name}")
    from peft import PeftModel

    base = load_model(checkpoint.base.path, exact, quantize=checkpoint.quantized or None)
    if checkpoint.quantized:
        base = base.dequantize()
    try:
        return PeftModel.from_pretrained(base, checkpoint.path, local_files_only=True).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()[:200]
        raise DataError(f"package: {checkpoint.path}: does not fit {checkpoint.base.name}: {reason}") from None


def _adapter_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'adapter_config.json'}: {error}; expected an adapter") from None
    return config


def fuse(model: Any, checkpoint: Checkpoint, folder: Path, precision: str) -> Checkpoint:
    """Write the fused model with its tokenizer to `folder`, which is new; `model` is used up.

    Raises:
        DataError: A weight is too large for f16.
    """
    import torch

    folder.mkdir()
    whole = model.merge_and_unload() if checkpoint.kind == "adapter" else model
    whole = whole.to(getattr(torch, _DTYPES[precision]))
    for name, tensor in whole.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise DataError(f"package: {name} has values that {precision} cannot hold; set package.precision=BF16")
    plain = not checkpoint.quantized  # else transformers would put them into 4 bits again, which it cannot
    whole.save_pretrained(folder, save_original_format=plain)
    for pattern in _TOKENIZER:
        for path in checkpoint.path.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    _no_code(folder)
    return Checkpoint(folder, "full", checkpoint.base, checkpoint.metrics, checkpoint.pruned_sha256, checkpoint.lot)


def _no_code(folder: Path) -> None:
    """GGML's converter opens tokenizers with code of their own allowed; there must be none."""
    for path in folder.glob("*.json"):
        if path.name != "tokenizer.json" and "auto_map" in json.loads(path.read_text(encoding="utf-8")):
            raise DataError(f"package: {path.name} has auto_map, which runs code from the model; use one without it")
