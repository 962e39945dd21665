"""Low-rank adapters as peft writes them, applied to one weight of the base at a time, in fp32.

Sources: LoRA, Hu et al. 2021, arXiv:2106.09685; DoRA, Liu et al. 2024, arXiv:2402.09353; rsLoRA, Kalajdzievski 2023,
arXiv:2312.03732.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry.errors import DataError
from foundry.recipe.weights import Entry, entries, read
from foundry.safety import ADAPTER_CONFIG

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "base_model.model."
_PARTS = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_A": "embedding_a",
    ".lora_embedding_B": "embedding_b",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}
_PAIRS = ({"a", "b"}, {"a", "b", "magnitude"}, {"embedding_a", "embedding_b"}, {"whole"})
_PLAIN_STARTS = {True, False, None, "gaussian", "orthogonal", "eva"}
"""Starts of training that leave the base as it is; PiSSA, OLoRA, CorDA and LoftQ change it."""

_REFUSED = (
    *("fan_in_fan_out", "layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens"),
    *("use_qalora", "use_bdlora", "arrow_config", "kasa_config", "velora_config", "monteclora_config", "lora_bias"),
)
"""Settings of an adapter that is more, or other, than W + BA or DoRA."""


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk.

    Attributes:
        parts: For each weight of the base that it changes, the tensors that say how.
        scales: For each of these, what BA is multiplied with.
    """

    parts: Mapping[str, Mapping[str, Entry]]
    scales: Mapping[str, float]

    @classmethod
    def of(cls, folder: Path) -> "Adapter":
        """Look an adapter up; no number of it is read.

        Raises:
            DataError: It is not safetensors, or not an adapter that can be written as a change of the base's weights.
        """
        config = _config(folder)
        parts: dict[str, dict[str, Entry]] = {}
        for name, entry in entries(folder, "adapter_model*.safetensors").items():
            weight, part = _place(folder, name)
            parts.setdefault(weight, {})[part] = entry
        for weight, found in parts.items():
            if found.keys() not in _PAIRS:
                raise DataError(f"{folder}: {weight} has {', '.join(sorted(found))}, expected the two factors A and B")
        scales = {weight: _scale(config, weight, found) for weight, found in parts.items() if "whole" not in found}
        return cls(parts, scales)

    def shape(self, weight: str) -> tuple[int, ...]:
        """The shape of the weight that a part of it belongs to."""
        part = self.parts[weight]
        if "whole" in part:
            return part["whole"].shape
        if "embedding_a" in part:
            return (*part["embedding_a"].shape[1:], *part["embedding_b"].shape[:1])
        return (*part["b"].shape[:1], *part["a"].shape[1:])

    def applied(self, weight: str, base: "Tensor") -> "Tensor":
        """The base's weight with the adapter merged into it.

        Args:
            weight: The weight's name.
            base: The base's weight (out, in) in fp32.

        Returns:
            A new tensor in fp32; `base` itself where the adapter does not change it.
        """
        import torch

        if weight not in self.parts:
            return base
        part = {name: read(entry).float() for name, entry in self.parts[weight].items()}
        if "whole" in part:
            return part["whole"]
        if "embedding_a" in part:
            return base + (part["embedding_b"] @ part["embedding_a"]).T * self.scales[weight]
        merged = (part["b"] @ part["a"]).mul_(self.scales[weight]).add_(base)
        if "magnitude" in part:
            merged *= (part["magnitude"] / torch.linalg.norm(merged, dim=1)).view(-1, 1)
        return merged


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, start = config.get("peft_type"), config.get("init_lora_weights", True)
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if kind != "LORA":
        raise DataError(f"{path}: peft_type is {kind!r}, expected an adapter of the LoRA family ('LORA')")
    if start not in _PLAIN_STARTS:
        raise DataError(f"{path}: init_lora_weights={start!r} changed the base; convert it to a plain LoRA with peft")
    for name in _REFUSED:
        if config.get(name):
            raise DataError(f"{path}: {name} is set; such an adapter cannot be fused, expected LoRA, rsLoRA or DoRA")
    if config.get("bias", "none") != "none":
        raise DataError(f"{path}: bias={config['bias']!r}; an adapter that trained biases cannot be fused")
    return dict(config)


def _place(folder: Path, name: str) -> tuple[str, str]:
    """The weight of the base that a tensor belongs to, and what part of the change it is."""
    inner = name.removeprefix(_PREFIX)
    for suffix, part in _PARTS.items():
        if inner.endswith(suffix):
            return f"{inner.removesuffix(suffix)}.weight", part
    if "lora_" in inner or inner == name:
        raise DataError(f"{folder}: has a tensor {name}, which belongs to no LoRA, rsLoRA or DoRA adapter")
    return inner.replace(".modules_to_save.", "."), "whole"


def _scale(config: Mapping[str, Any], weight: str, parts: Mapping[str, Entry]) -> float:
    """What BA is multiplied with: alpha over the rank, or over its square root with rsLoRA."""
    rank = parts["a" if "a" in parts else "embedding_a"].shape[0]
    alpha = config.get("lora_alpha", rank)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", weight.removesuffix(".weight")):
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
