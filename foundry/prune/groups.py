"""Groups of connected pairs, in memory for N edges however many pairs come in."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PENDING = 4_000_000
"""Pairs held before they are taken together; 64 MB."""


class Groups:
    """N rows, each alone at first, joined pair by pair."""

    def __init__(self, count: int) -> None:
        import numpy as np

        self._labels = np.arange(count)
        self._pending: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._held = 0

    def join(self, first: "NDArray[np.int64]", second: "NDArray[np.int64]") -> None:
        """Say that these pairs of rows belong together."""
        self._pending.append((first, second))
        self._held += len(first)
        if self._held > _PENDING:
            self.labels()

    def labels(self) -> "NDArray[np.int64]":
        """The group of each row, (N,): the smallest row in it."""
        import numpy as np
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        if self._held:
            count = len(self._labels)
            pairs = [*self._pending, (np.arange(count), self._labels)]
            first, second = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
            graph = coo_matrix((np.ones(len(first), np.int32), (first, second)), shape=(count, count))
            _, group = connected_components(graph, directed=False)
            smallest = np.full(count, count)
            np.minimum.at(smallest, group, np.arange(count))
            self._labels = smallest[group]
            self._pending, self._held = [], 0
        return self._labels

    def merged(self) -> int:
        """How many rows are in a group that a smaller row leads."""
        import numpy as np

        return int(np.count_nonzero(self.labels() != np.arange(len(self._labels))))
