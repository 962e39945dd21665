"""Tokenised rows → batches, in one place for every objective, and the order in which they come."""

import math
from collections.abc import Sequence
from typing import Any

from foundry.method.tokens import MASKED, Tokens, sides


class Collator:
    """Pads sequences at the end into tensors (B, T); of pairs, every chosen side and then every rejected one.

    A batch also has `row`, (number of rows,): which rows it was made of.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: Sequence[Tokens]) -> dict[str, Any]:
        """Make one batch."""
        import torch

        ordered = [side[1:] for group in zip(*map(sides, rows), strict=True) for side in group]
        width = max(len(ids) for ids, _ in ordered)
        batch = {
            "input_ids": [ids + [self.pad] * (width - len(ids)) for ids, _ in ordered],
            "attention_mask": [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in ordered],
            "labels": [labels + [MASKED] * (width - len(labels)) for _, labels in ordered],
            "row": [row["row"] for row in rows],
        }
        return {name: torch.tensor(values) for name, values in batch.items()}


def head_chunk(trained: float) -> int:
    """Places that SFT's head takes at a time, for batches that learn from about `trained` tokens.

    TRL takes 256 and fills up with places that count for nothing: a sixth of the main job's time, whose answers are
    three tokens long.
    """
    return min(max(math.ceil(trained / 32) * 32, 32), 256)


def first_batch(count: int, batch_size: int, seed: int) -> list[int]:
    """Which rows the first batch of the first epoch takes: those that accelerate's seeded sampler draws."""
    import torch

    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return [int(index) for index in order[:batch_size]]
