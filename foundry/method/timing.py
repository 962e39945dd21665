"""About how long training takes: one block of the base's shape is made of random numbers, and its passes are timed."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from foundry.hardware import Machine
from foundry.loading import autocast, load_model, quantized, quiet, read_config
from foundry.method.memory import Architecture
from foundry.records import BaseModel

if TYPE_CHECKING:
    from foundry.method.tuning import Tuning

_TOKENS = 512
"""Tokens of a timed pass, at most."""
_WORDS = 8
"""The block's vocabulary: its head costs nothing."""


def seconds(
    method: "Tuning", base: BaseModel, machine: Machine, rows: int, length: int, tokens: float, trained: float
) -> float:
    """Estimate the time of all steps.

    Blocks are alike, so that one tells of all. The head, which learnt tokens alone go through, is taken to be as fast
    as a block of as many weights.

    Args:
        method: What is put on the block, and which passes go through it.
        base: Whose shape it has.
        machine: What it is timed on.
        rows: Rows of a batch.
        length: Tokens of a row.
        tokens: Tokens that go through the blocks in all.
        trained: How many of them are learnt.
    """
    quiet()
    shape = Architecture.of(read_config(base.path))
    head = shape.vocabulary * shape.hidden / shape.linear_weights  # as a share of all blocks
    with tempfile.TemporaryDirectory() as folder:
        block = _block(method, base, machine, Path(folder))
    rows = max(min(rows, _TOKENS // length), 1)
    forward, both = _passes(block, machine, rows, min(length, _TOKENS))
    again = int(method.allow_gradient_checkpointing) + int(method.referenced)
    return shape.layers * (both + again * forward) * (tokens + trained * head)


def _block(method: "Tuning", base: BaseModel, machine: Machine, folder: Path) -> Any:
    """The base with one block and next to no words, held and adapted as the method's is."""
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    config.num_hidden_layers, config.vocab_size, config.pad_token_id = 1, _WORDS, None
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
    """Seconds a token of a pass forward, and of one forward and back; the first of four of each is not counted."""
    import torch

    given: Any = torch.randn(rows, length, block.config.hidden_size, device=machine.device, requires_grad=True)

    def forward() -> Any:
        with autocast(machine):
            return block(inputs_embeds=given, use_cache=False).logits.float().sum()

    def timed(work: Callable[[], Any]) -> float:
        taken = []
        for _ in range(4):
            begun = time.perf_counter()
            work().item()  # which waits for a GPU
            taken.append(time.perf_counter() - begun)
        return median(taken[1:]) / (rows * length)

    def both() -> Any:
        forward().backward()
        return given.grad.sum()

    block.train()
    with torch.no_grad():
        alone = timed(forward)
    return alone, timed(both)
