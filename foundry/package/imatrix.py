"""The importance matrix: how large the inputs of each linear layer are on training rows, column by column.

llama.cpp's quantiser weighs the rounding error of a column by the mean square of what it is multiplied with
(github.com/ggml-org/llama.cpp/tree/master/tools/imatrix). The mean squares are taken in transformers, on the fused
model, over the tokens of whole conversations.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from foundry.errors import DataError
from foundry.records import Row


def write(model: Any, tokenizer: Any, rows: Sequence[Row], to: Path, max_length: int) -> int:
    """Write mean squares, float32 of shape (in,), by GGUF tensor name as safetensors; returns the tokens seen.

    Raises:
        DataError: No row is a conversation.
    """
    import torch
    from safetensors.torch import save_file

    sums: dict[str, Any] = {}
    names = tensor_names(model.config)
    hooks = [
        layer.register_forward_hook(_adding(sums, called))
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and (called := names.get_name(f"{name}.weight", (".weight",)))
    ]
    seen = 0
    try:
        with torch.inference_mode():
            for row in rows:
                ids = tokenizer.apply_chat_template(conversation(row), return_dict=False)[:max_length]
                model(torch.tensor([ids], device=model.device))
                seen += len(ids)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise DataError("package.imatrix: there are no training rows with messages to take it from")
    save_file({name: (total / seen).float().cpu() for name, total in sums.items()}, to)
    return seen


def conversation(row: Row) -> list[dict[str, Any]]:
    """The messages of a row, prompt and answer."""
    return [*row["prompt"], *row.get("completion", row.get("chosen", ()))]


def tensor_names(config: Any) -> Any:
    """The map of gguf from the names that transformers has for tensors to those in a GGUF file."""
    from gguf import MODEL_ARCH, get_tensor_name_map
    from gguf.constants import MODEL_ARCH_NAMES

    kinds = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}
    arch = kinds.get(config.model_type, MODEL_ARCH.LLAMA)
    return get_tensor_name_map(arch, config.num_hidden_layers)


def _adding(sums: dict[str, Any], name: str) -> Callable[[Any, Any, Any], None]:
    def add(_layer: Any, inputs: Any, _output: Any) -> None:
        squares = inputs[0].detach().double().pow(2).flatten(0, -2).sum(0)
        sums[name] = sums[name] + squares if name in sums else squares

    return add
