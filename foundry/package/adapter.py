"""The adapter alone as a GGUF file that llama.cpp adds to a base while it runs.

llama.cpp takes `<tensor>.lora_a` (rank, in) and `<tensor>.lora_b` (out, rank) and scales their product by alpha / rank:
github.com/ggml-org/llama.cpp/blob/master/src/llama-adapter.cpp. It knows no magnitudes, so no DoRA.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from foundry.errors import DataError
from foundry.loading import read_config
from foundry.package.imatrix import tensor_names
from foundry.records import Checkpoint

_FIRST = "base_model.model."


def obstacle(checkpoint: Checkpoint) -> str:
    """Why llama.cpp cannot take this adapter; nothing if it can."""
    if checkpoint.kind != "adapter":
        return "there is none"
    if checkpoint.quantized:
        return "it learnt on a base in 4 bits, which llama.cpp's is not; the fused file has it"
    config = json.loads((checkpoint.path / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("use_dora"):
        return "llama.cpp knows no DoRA; the fused file has it"
    if config.get("modules_to_save") or config.get("rank_pattern") or config.get("alpha_pattern"):
        return "llama.cpp takes one rank and alpha, and no further weights; the fused file has them"
    return ""


def write_adapter(adapter: Path, base: Path, to: Path) -> None:
    """Write a LoRA adapter, rsLoRA included, in f32.

    Raises:
        DataError: A tensor of it is not of a LoRA adapter, or the base has no such tensor.
    """
    from gguf import GGUFWriter, Keys
    from safetensors.numpy import load_file

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    hparams = read_config(base)
    names = tensor_names(SimpleNamespace(**hparams))
    rank, alpha = config["r"], config["lora_alpha"]
    writer = GGUFWriter(to, names_arch(hparams))
    writer.add_type("adapter")
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha * math.sqrt(rank) if config.get("use_rslora") else alpha)
    for name, values in _tensors(load_file(adapter / "adapter_model.safetensors"), names, hparams):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def names_arch(hparams: Mapping[str, Any]) -> str:
    """The architecture's name in GGUF."""
    from conversion import get_model_class
    from gguf.constants import MODEL_ARCH_NAMES

    return str(MODEL_ARCH_NAMES[get_model_class(hparams["architectures"][0]).model_arch])


def _tensors(found: Mapping[str, Any], names: Any, hparams: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    import numpy as np
    from conversion import get_model_class

    rotated = getattr(get_model_class(hparams["architectures"][0]), "undo_permute", False)
    for key, values in sorted(found.items()):
        module, _, part = key.removeprefix(_FIRST).removesuffix(".weight").rpartition(".")
        called = names.get_name(f"{module}.weight", (".weight",))
        if part not in ("lora_A", "lora_B") or called is None:
            raise DataError(
                f"package.adapter_gguf: {key}: llama.cpp has no such tensor; set package.adapter_gguf=false"
            )
        heads = _heads(module, hparams) if rotated and part == "lora_B" else 0
        yield f"{called}.{part.lower()}", np.ascontiguousarray(_rotated(values, heads), dtype=np.float32)


def _heads(module: str, hparams: Mapping[str, Any]) -> int:
    """The heads of a query or key projection; 0 for any other layer."""
    heads = int(hparams["num_attention_heads"])
    grouped = int(hparams.get("num_key_value_heads") or heads)
    return {"q_proj": heads, "k_proj": grouped}.get(module.rpartition(".")[2], 0)


def _rotated(rows: Any, heads: int) -> Any:
    """The rows of a query or key projection in the order that llama.cpp's rotary embedding wants; others stay."""
    if not heads:
        return rows
    pairs = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
