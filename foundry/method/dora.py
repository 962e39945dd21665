"""DoRA without the dense product: the norm of each row of W + s·BA from its parts, so that BA is never made.

‖w + s·bA‖² = ‖w‖² + 2s·⟨(WAᵀ) row, b⟩ + s²·⟨b(AAᵀ), b⟩ for a row w of W and b of B. At rank r that takes
out·in·r products where making BA takes as many and (out, in) numbers beside W, and peft makes them by way of a unit
matrix, (in, in). As in the paper (Liu et al. 2024, arXiv:2402.09353, section 4.3) and peft, the norm is a constant to
the backward pass. Where an update all but cancels a row of W, the sum has fewer right digits. Only
peft's `lora_variant` of each layer is exchanged: parameters, saving and merging are peft's.
"""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

_PRODUCTS = {"Linear", "Linear4bit"}
"""Base layers that are a plain matrix product; others (convolutions, embeddings, 8 bits) stay with peft."""


def factor(model: Any) -> int:
    """Have every DoRA layer of a peft model that is a matrix product take its norms from the factors.

    Returns:
        How many layers do.
    """
    found = 0
    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or type(layer.get_base_layer()).__name__ not in _PRODUCTS:
            continue
        for name, variant in getattr(layer, "lora_variant", {}).items():
            if type(variant) is DoraLinearVariant and not layer.fan_in_fan_out:
                layer.lora_variant[name] = FactoredDora()
                found += 1
    return found


class FactoredDora(DoraLinearVariant):  # type: ignore[misc]
    """One layer's DoRA."""

    def __init__(self) -> None:
        self._squares: tuple[Any, Tensor] | None = None

    def forward(self, module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """Add the adapter to what the base gives, as peft's DoRA does.

        Args:
            module: peft's layer.
            active_adapter: The adapter's name.
            x: The layer's input, (…, in).
            result: What the base layer made of it, (…, out).
        """
        down, up = module.lora_A[active_adapter], module.lora_B[active_adapter]
        dropout, scaling = module.lora_dropout[active_adapter], module.scaling[active_adapter]
        base = module.get_base_layer()
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            norm = self.norm(base, down.weight, up.weight, scaling)
        magnitude = module.lora_magnitude_vector[active_adapter].weight / norm
        if not isinstance(dropout, nn.Identity) and module.training:
            # What is dropped is dropped for W too, so that it has to be multiplied once more.
            x = dropout(x)
            seen = nn.functional.linear(x, dequantize_module_weight(base).to(x.dtype))
            changed: Tensor = result + (magnitude - 1) * seen + magnitude * up(down(x)) * scaling
            return changed
        update: Tensor = up(down(x) * scaling)  # scaled where it is narrow
        if base.bias is None:
            return _scaled(result + update, magnitude)
        bias: Tensor = base.bias.to(result.dtype)
        return _scaled(result - bias + update, magnitude) + bias

    def norm(self, base: Any, down: Tensor, up: Tensor, scaling: float) -> Tensor:
        """Norm of each row of W + s·BA, (out,).

        Args:
            base: The layer that holds W, (out, in).
            down: A, (rank, in).
            up: B, (out, rank).
            scaling: s.
        """
        weight, down, up = dequantize_module_weight(base), down.float(), up.float()
        key = (base.weight.data_ptr(), base.weight._version, base.weight.device)  # noqa: SLF001  # else W is another
        if self._squares is None or self._squares[0] != key:
            self._squares = (key, torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32).square())
        crossed = nn.functional.linear(down.to(weight.dtype), weight).float().T * up  # (out, rank)
        own = (up @ (down @ down.T)) * up
        squares = self._squares[1] + 2 * scaling * crossed.sum(1) + scaling**2 * own.sum(1)
        return squares.clamp(min=0).sqrt()  # rounding may leave less than nothing of a row that is all but cancelled


def _scaled(t: Tensor, g: Tensor) -> Tensor:
    found: Tensor = _Scaled.apply(t, g)  # type: ignore[no-untyped-call]
    return found


class _Scaled(torch.autograd.Function):
    """Columns of t, (…, out), times magnitudes g, (out,), as t + t·(g - 1).

    Of a g near one bf16 would lose the small changes, of g - 1 it does not; and operands of one width are many times
    faster on a CPU than bf16 with fp32.
    """

    @staticmethod
    def forward(ctx: Any, t: Tensor, g: Tensor) -> Tensor:
        change = (g - 1).to(t.dtype)
        ctx.save_for_backward(t, change)
        return torch.addcmul(t, t, change)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        t, change = ctx.saved_tensors
        (gradient,) = gradients
        return torch.addcmul(gradient, gradient, change), (gradient * t).flatten(0, -2).sum(0)
