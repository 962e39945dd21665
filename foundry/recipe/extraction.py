"""An adapter extracted again from a fused model: the best approximation of each change at a rank.

The mathematics is that of mergekit's `mergekit-extract-lora`: the singular values are shared by the square root between
the two factors, so that alpha equals the rank.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundry.errors import DataError
from foundry.safety import ADAPTER_CONFIG

if TYPE_CHECKING:
    from torch import Tensor

_WHOLE = ("embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out")
"""Parts of names of weights that no LoRA adapter of a linear layer covers."""


@dataclass(frozen=True)
class Factors:
    """The change of one weight as B A: A (rank, in), B (out, rank); the squared norms of what stays and of all."""

    a: "Tensor"
    b: "Tensor"
    kept: float
    total: float


def factors(name: str, change: "Tensor", rank: int) -> Factors | None:
    """Factorise the change of a weight.

    Args:
        name: The weight's name.
        change: Fused minus base, (out, in) in fp32.
        rank: The rank at most.

    Returns:
        The factors; None where nothing changed.

    Raises:
        DataError: The weight changed, but is no linear layer's.
    """
    import torch

    if not bool(change.any()):
        return None
    if change.dim() != 2 or not name.endswith(".weight") or any(part in name for part in _WHOLE):
        raise DataError(
            f"recipe.output=adapter: {name} changed and is no linear layer's weight, which an adapter cannot hold; "
            "take recipe.output=full"
        )
    u, s, vh = torch.linalg.svd(change, full_matrices=False)
    root = s[:rank].sqrt()
    squares = s.double().square()
    return Factors(
        (root[:, None] * vh[:rank]).contiguous(),
        (u[:, :rank] * root).contiguous(),
        float(squares[:rank].sum()),
        float(squares.sum()),
    )


def write_adapter(folder: Path, found: Mapping[str, Factors], rank: int, base_name: str) -> None:
    """Write the factors as peft would.

    Args:
        folder: Where to.
        found: The factors by the name of their weight.
        rank: The rank asked for; a layer that is smaller has its own.
        base_name: What the adapter's base is called.

    Raises:
        DataError: Nothing changed.
    """
    from safetensors.torch import save_file

    if not found:
        raise DataError("recipe.output=adapter: the fused model equals its base, so there is no adapter to extract")
    tensors, ranks = {}, {}
    for name, part in sorted(found.items()):
        module = name.removesuffix(".weight")
        tensors[f"base_model.model.{module}.lora_A.weight"] = part.a
        tensors[f"base_model.model.{module}.lora_B.weight"] = part.b
        ranks[module] = int(part.a.shape[0])
    smaller = {module: own for module, own in ranks.items() if own != rank}
    config = {
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "alpha_pattern": smaller,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": smaller,
        "target_modules": sorted(ranks),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
