"""What a training run will take: rows and tokens a step, steps, about how long; and how long rows are."""

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from foundry.compute import Compute
from foundry.hardware import Machine
from foundry.method.kept import totals
from foundry.method.timing import seconds
from foundry.ranks import world
from foundry.records import BaseModel

if TYPE_CHECKING:
    from datasets import Dataset

    from foundry.method.tuning import Tuning


def plan(method: "Tuning", made: "Dataset", base: BaseModel, compute: Compute, machine: Machine | None) -> str:
    """Count what the steps will see; the time is left out where there is no machine to time."""
    effective = compute.batch_size * compute.grad_accum * world()
    steps = planned_steps(len(made), compute, method.epochs, method.max_steps)
    rounds = steps * effective / len(made)
    counted, learnt = totals(made)
    tokens, trained = rounds * counted, rounds * learnt
    parts = f"{compute.batch_size} × {compute.grad_accum}" + (f" × {world()} processes" if world() > 1 else "")
    line = (
        f"{effective} rows a step ({parts}) · {steps:,} steps, {rounds:,.2f} epochs"
        f" · about {tokens:,.0f} tokens, {trained:,.0f} of them trained"
    )
    if machine is not None:
        sides = 2 if method.pairs else 1
        twice = (tokens - trained) / 2 if method.pairs and method.packing else 0  # a packed pair's prompt is read once
        rows, length = compute.batch_size * sides, math.ceil(counted / (sides * len(made)))
        with suppress(Exception):  # a block that cannot be made by itself must not cost the job
            taken = seconds(method, base, machine, rows, length, (tokens - twice) / world(), trained / world())
            line += f" · about {_spoken(taken)} on {machine.device}"
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


def _spoken(count: float) -> str:
    if count < 90:
        return f"{count:.0f} s"
    return f"{count / 60:.0f} min" if count < 5400 else f"{count / 3600:.1f} h"
