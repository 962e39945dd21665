"""What a training run will take: rows and tokens a step, steps, about how long; and how long rows are."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from foundry.compute import Compute
from foundry.hardware import Machine, flops
from foundry.method.kept import totals
from foundry.ranks import world
from foundry.records import BaseModel

if TYPE_CHECKING:
    from datasets import Dataset

    from foundry.method.tuning import Tuning

_REACHED = 0.5
"""Share of a bare matrix product's speed that training reaches; 0.4 to 0.7 were seen."""


def plan(method: "Tuning", made: "Dataset", base: BaseModel, compute: Compute, machine: Machine | None) -> str:
    """Count what the steps will see; the time is left out where there is no machine to time."""
    effective = compute.batch_size * compute.grad_accum * world()
    steps = planned_steps(len(made), compute, method.epochs, method.max_steps)
    rounds = steps * effective / len(made)
    tokens, trained = (round(rounds * count) for count in totals(made))
    parts = f"{compute.batch_size} × {compute.grad_accum}" + (f" × {world()} processes" if world() > 1 else "")
    line = (
        f"{effective} rows a step ({parts}) · {steps:,} steps, {rounds:,.2f} epochs"
        f" · about {tokens:,} tokens, {trained:,} of them trained"
    )
    if machine is not None:
        line += f" · about {_spoken(_work(method, base) * tokens / (_REACHED * flops(machine)))} on {machine.device}"
    return line


def histogram(lengths: Iterable[int]) -> list[tuple[str, int]]:
    """Count lengths in bins that double.

    Returns:
        Each bin's bounds, such as `65–128`, and its count, from the shortest to the longest length found.
    """
    bins = Counter(max(length - 1, 0).bit_length() for length in lengths)
    if not bins:
        return []
    return [(f"{2**power // 2 + 1}–{2**power}", bins[power]) for power in range(min(bins), max(bins) + 1)]


def planned_steps(rows: int, compute: Compute, epochs: float, max_steps: int) -> int:
    """Optimiser steps, counted as transformers' Trainer does."""
    batches = math.ceil(math.ceil(rows / compute.batch_size) / world())
    return max_steps if max_steps > 0 else math.ceil(epochs * max(math.ceil(batches / compute.grad_accum), 1))


def _work(method: "Tuning", base: BaseModel) -> float:
    """Operations a token: forward and backward, without the weights' gradients where they are frozen."""
    passes = 6.0 if method.adapter is None else 4.0
    passes += 2.0 if method.allow_gradient_checkpointing else 0.0
    passes += 2.0 if method.referenced else 0.0
    return passes * base.parameters


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
