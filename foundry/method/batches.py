"""Tokenised rows → batches, in one place for every objective, and the order in which they come."""

import math
from collections.abc import Sequence
from itertools import takewhile
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


class Packer:
    """Lays sequences end to end in one row, (1, T), without padding; `documents` says where (see `packed`).

    Of pairs, a row's prompt is there once, and what follows it on either side sees it. Instead of `labels` a batch of
    pairs has the `places` of the row, (N,), from which `targets`, (N,), are predicted, and their `owner`, (N,): the
    chosen sides are 0 to B - 1, the rejected ones B to 2B - 1. A batch also has `row`, as the collator's.
    """

    def __call__(self, rows: Sequence[Tokens]) -> dict[str, Any]:
        """Make one batch."""
        import torch

        strip = _Strip()
        for index, row in enumerate(rows):
            strip.add(sides(row), range(index, 2 * len(rows), len(rows)))
        made = strip.batch("labels" if "labels" in rows[0] else "answers") | {"row": [row["row"] for row in rows]}
        batch: dict[str, Any] = {name: torch.tensor(values) for name, values in made.items()}
        return batch | {"documents": tuple(strip.documents)}


class _Strip:
    """A row that grows by documents."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.labels: list[int] = []
        self.positions: list[int] = []
        self.documents: list[tuple[tuple[int, int], ...]] = []
        self.answers: list[tuple[int, int, int]] = []

    def add(self, sequences: Sequence[tuple[str, list[int], list[int]]], owners: Sequence[int]) -> None:
        """Append the sequences of one row; those after the first read the prompt that they share from it."""
        base, shared = len(self.ids), _shared(sequences)
        for number, (_, ids, labels) in enumerate(sequences):
            skip, start = (shared if number else 0), len(self.ids)
            places = [*range(base, base + skip), *range(start, start + len(ids) - skip)]
            learnt = [at for at in range(1, len(ids)) if labels[at] != MASKED]
            self.answers += [(places[at - 1], labels[at], owners[number]) for at in learnt]
            self.ids += ids[skip:]
            self.labels += [MASKED, *labels[1:]][skip:]  # a first token has nothing before it
            self.positions += range(skip, len(ids))
            own = (start, len(self.ids))
            self.documents.append(((base, base + skip), own) if skip else (own,))

    def batch(self, kind: str) -> dict[str, Any]:
        """The row, and what is learnt from it."""
        made: dict[str, Any] = {"input_ids": [self.ids], "position_ids": [self.positions]}
        if kind == "labels":
            return made | {"labels": [self.labels]}
        return made | dict(zip(("places", "targets", "owner"), zip(*self.answers, strict=True), strict=True))


def packed_length(sequences: Sequence[tuple[str, list[int], list[int]]]) -> int:
    """Places that the sequences of one row take in a packed row."""
    return sum(len(ids) for _, ids, _ in sequences) - (len(sequences) - 1) * _shared(sequences)


def _shared(sequences: Sequence[tuple[str, list[int], list[int]]]) -> int:
    """Leading tokens that all sequences have in common and none learns from."""
    if len(sequences) == 1:
        return 0
    pairs = zip(*(zip(ids, labels, strict=True) for _, ids, labels in sequences), strict=False)
    return sum(1 for _ in takewhile(lambda found: len(set(found)) == 1 and found[0][1] == MASKED, pairs))


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
