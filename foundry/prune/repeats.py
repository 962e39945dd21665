"""Rows whose canonical JSON is the same, and the way from groups of rows to what is kept and removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foundry.records import Dataset, Pruned, Removed
from foundry.rows import Rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Distinct:
    """The different rows of a data set, ordered by digest, so that nothing later depends on how they came in.

    Attributes:
        rows: All M rows as they came in.
        first: Where each of the N different rows occurs first, (N,).
        place: For each of the M, which of the N it is, (M,).
    """

    rows: Rows
    first: "NDArray[np.int64]"
    place: "NDArray[np.int64]"

    def __len__(self) -> int:
        return len(self.first)


def distinct(dataset: Dataset) -> Distinct:
    """Take the exact repeats among the training rows together."""
    import numpy as np

    rows = Rows.of(dataset.train)
    _, first, place = np.unique(rows.digests().reshape(-1).view("S32"), return_index=True, return_inverse=True)
    return Distinct(rows, first, place)


def representatives(labels: "NDArray[np.int64]", score: "NDArray[Any]") -> "NDArray[np.int64]":
    """For each row, the row of its group with the highest score; of equal ones the smallest digest wins.

    Args:
        labels: The group of each row, (N,), rows ordered by digest.
        score: What is wanted most, (N,).
    """
    import numpy as np

    order = np.lexsort((np.arange(len(labels)), -score, labels))
    opens = np.ones(len(order), bool)
    opens[1:] = labels[order][1:] != labels[order][:-1]
    stands = np.empty_like(order)
    stands[order] = order[opens][np.cumsum(opens) - 1]
    return stands


def settled(dataset: Dataset, found: Distinct, stands: "NDArray[np.int64]", similarity: Sequence[float]) -> Pruned:
    """Keep the rows that stand for themselves and name for every other one which row stands for it.

    Args:
        dataset: Whose training rows are pruned.
        found: Their different rows, N of them.
        stands: Which of the N stands for each of the N, (N,).
        similarity: How near each of the N is to that one.
    """
    import numpy as np

    heads = found.first[stands][found.place]
    gone = heads != np.arange(len(heads))
    kept = found.rows.select(np.flatnonzero(~gone))
    removed = [
        Removed(index, int(heads[index]), float(similarity[found.place[index]]), found.rows[index])
        for index in np.flatnonzero(gone).tolist()
    ]
    return Pruned(kept, removed, kept.sha256(), dataset.sha256)
