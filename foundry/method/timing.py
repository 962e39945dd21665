"""About how long training takes: one block of the base's shape is made of random numbers, and its passes are timed."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry.hardware import Machine
from foundry.loading import autocast, load_model, quantized, quiet, read_config
from foundry.method.memory import Architecture
from foundry.records import BaseModel

if TYPE_CHECKING:
    from foundry.method.tuning import Tuning

_TOKENS = 512
"""Tokens of a timed pass, at most."""
_WORDS = 8192
"""Words of the timed head, at most; the time grows with them."""
_BESIDE = 1.4
"""How much longer steps take than these passes: gathering rows, packing, the optimiser. 1.3 to 1.5 were seen."""


def seconds(
    method: "Tuning", base: BaseModel, machine: Machine, rows: int, length: int, tokens: float, trained: float
) -> float:
    """Estimate the time of all steps.

    Blocks are alike, so that one tells of all. Learnt tokens alone go through the head.

    Args:
        method: What is put on the block, and which passes go through it.
        base: Whose shape it has.
        machine: What it is timed on.
        rows: Rows of a batch.
        length: Tokens of a row.
        tokens: Tokens that go through the blocks in all.
        trained: How many of them are learnt.

    Returns:
        Seconds, without the opening of the model.

    Raises:
        DataError: The base's config.json tells no sizes, or transformers cannot open one block of it.
    """
    quiet()
    shape = Architecture.of(read_config(base.path))
    with tempfile.TemporaryDirectory() as folder:
        block = _block(method, base, machine, Path(folder))
    rows = max(min(rows, _TOKENS // length), 1)
    forward, both = _passes(block, machine, rows, min(length, _TOKENS))
    again = int(method.allow_gradient_checkpointing) + int(method.referenced)
    return _BESIDE * (shape.layers * (both + again * forward) * tokens + _head(shape, machine) * trained)


def _block(method: "Tuning", base: BaseModel, machine: Machine, folder: Path) -> Any:
    """The base with one block and next to no words, held and adapted as the method's is."""
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    for key, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == config.num_hidden_layers:  # such as the kind of each layer
            setattr(config, key, value[:1])
    config.num_hidden_layers, config.vocab_size, config.pad_token_id = 1, 8, None
    adapter, held = method.adapter, quantized(base.path, method.adapter.quantize if method.adapter else None)
    if held:
        config.__dict__.pop("quantization_config", None)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    model = load_model(folder, machine, quantize="nf4" if held else None)
    if adapter is None:
        return model.float()
    model = get_peft_model(model, adapter.peft())
    if adapter.dora:
        from foundry.method.dora import factor

        factor(model)
    return model


def _passes(block: Any, machine: Machine, rows: int, length: int) -> tuple[float, float]:
    """Seconds a token of a pass forward, and of one forward and back."""
    import torch

    given: Any = torch.randn(rows, length, block.config.hidden_size, device=machine.device, requires_grad=True)

    def forward() -> Any:
        with autocast(machine):
            return block(inputs_embeds=given, use_cache=False).logits.float().sum()

    def both() -> Any:
        forward().backward()
        return given.grad.sum()

    block.train()
    with torch.no_grad():
        alone = _shortest(forward)
    return alone / (rows * length), _shortest(both) / (rows * length)


def _head(shape: Architecture, machine: Machine) -> float:
    """Seconds a learnt token of the head and its loss, forward and back."""
    import torch

    words, places = min(shape.vocabulary, _WORDS), 64
    weight = torch.randn(words, shape.hidden, device=machine.device)
    given: Any = torch.randn(places, shape.hidden, device=machine.device, requires_grad=True)
    labels = torch.arange(places, device=machine.device) % words

    def both() -> Any:
        with autocast(machine):
            logits = torch.nn.functional.linear(given, weight)
        loss: Any = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        return given.grad.sum()

    return _shortest(both) / places * shape.vocabulary / words


def _shortest(work: Callable[[], Any]) -> float:
    """Seconds of the quickest of four; their result is asked for, which waits for a GPU."""
    taken = []
    for _ in range(4):
        begun = time.perf_counter()
        work().item()
        taken.append(time.perf_counter() - begun)
    return min(taken)
