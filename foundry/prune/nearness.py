"""What a report says about how near the rows of a data set are to each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundry.records import Group, Nearness, Removed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_EDGES = (0.0, *(round(0.5 + step / 40, 3) for step in range(21)))
_GROUPS = 10


def facts(
    threshold: float,
    removed: Sequence[Removed],
    nearest: "NDArray[np.float32]",
    removals: Sequence[tuple[float, int]],
    repeats: int,
) -> Nearness:
    """Put the facts together.

    Args:
        threshold: The one that was asked for.
        removed: The rows that pruning took out.
        nearest: Similarity of each different row to its nearest other one, (N,).
        removals: Thresholds, and how many of the different rows each would take out.
        repeats: Exact repeats, which every threshold takes out.
    """
    import numpy as np

    told = {at: repeats + count for at, count in removals} | {threshold: len(removed)}
    counts, _ = np.histogram(np.clip(nearest, _EDGES[0], _EDGES[-1]), bins=_EDGES)
    return Nearness(
        threshold=threshold,
        histogram=tuple(zip(_EDGES[:-1], _EDGES[1:], counts.tolist(), strict=True)),
        removals=tuple(sorted(told.items())),
        largest=_largest(removed),
    )


def _largest(removed: Sequence[Removed]) -> tuple[Group, ...]:
    groups: dict[int, list[float]] = {}
    for row in removed:
        groups.setdefault(row.representative, []).append(row.similarity)
    found = (Group(index, len(near) + 1, min(near)) for index, near in groups.items())
    return tuple(sorted(found, key=lambda group: (-group.size, group.representative))[:_GROUPS])
