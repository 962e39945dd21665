"""The different rows of a data set as vectors, and which of them are connected."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundry.prune.embedder import Embedder, embedded
from foundry.prune.groups import Groups
from foundry.prune.neighbours import Points, Search

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Places = NDArray[np.int64]

THRESHOLDS = (0.90, 0.93, 0.95, 0.97, 0.99)
"""What the report tells the effect of."""

_DOUBTS = 2_000_000
"""Pairs held that are too close to the threshold to tell."""


class Comparison:
    """N rows, in an order that does not depend on how they came in.

    Args:
        texts: The sides of each row that are compared, as many for every row.
        apart: What must be equal for two rows to be compared, one for each row.
        embedder: Where vectors come from.
        threshold: Above it, two rows say the same.

    Attributes:
        lengths: Characters of each row, (N,).
        nearest: Similarity of each row to its nearest other one, (N,), once `groups` was called.
        removals: How many rows each of `THRESHOLDS` would take out, once `groups` was called.
    """

    def __init__(
        self, texts: Sequence[tuple[str, ...]], apart: Sequence[str], embedder: Embedder, threshold: float
    ) -> None:
        import numpy as np

        self._embedder, self._threshold = embedder, threshold
        self._texts = sorted({side for row in texts for side in row})
        places = {text: place for place, text in enumerate(self._texts)}
        _, codes = np.unique(np.array(apart), return_inverse=True)
        self._points = Points(
            embedded(embedder, self._texts), np.array([[places[side] for side in row] for row in texts]), codes
        )
        self._finer = embedder.exact()
        self._exact = np.full(len(self._texts), self._finer is embedder)
        self.lengths = np.array([sum(map(len, row)) for row in texts], np.float64)
        self.nearest: NDArray[np.float32] = np.empty(0, np.float32)
        self.removals: list[tuple[float, int]] = []

    def groups(self, rows: "Places") -> "Places":
        """Label the connected ones of these rows, (M,) → (M,).

        A pair further from the threshold than the embedder's slack is decided at once. The texts of the others
        are embedded at full precision, unless the pair is connected anyway: rows are connected as they would be
        with full precision everywhere.
        """
        import numpy as np

        low, high = self._threshold - self._embedder.slack, self._threshold + self._embedder.slack
        others = {} if len(self.nearest) else {threshold: Groups(len(rows)) for threshold in THRESHOLDS}
        search = Search(self._points.subset(rows), min(low, *others, 1.0))
        joined = Groups(len(rows))
        doubts: list[tuple[Places, Places]] = []
        for first, second, near in search.pairs():
            for threshold, groups in others.items():
                groups.join(first[near > threshold], second[near > threshold])
            joined.join(first[near > high], second[near > high])
            unsure = (near > low) & (near <= high)
            doubts.append((first[unsure], second[unsure]))
            if sum(len(pair[0]) for pair in doubts) > _DOUBTS:
                self._decide(joined, doubts, rows)
                doubts = []
        self._decide(joined, doubts, rows)
        if others:
            self.nearest = search.nearest
            self.removals = [(threshold, groups.merged()) for threshold, groups in others.items()]
        labels: NDArray[np.int64] = joined.labels()
        return labels

    def _decide(self, joined: Groups, doubts: "list[tuple[Places, Places]]", rows: "Places") -> None:
        import numpy as np

        if not doubts:
            return
        first, second = (np.concatenate(ends) for ends in zip(*doubts, strict=True))
        labels = joined.labels()
        apart = labels[first] != labels[second]
        first, second = first[apart], second[apart]
        self._sharpen(rows[np.concatenate([first, second])])
        above = self._points.similarity(rows[first], rows[second]) > self._threshold
        joined.join(first[above], second[above])

    def _sharpen(self, rows: "Places") -> None:
        """Put vectors of full precision in the place of the others, for the texts of these rows."""
        import numpy as np

        texts = np.unique(self._points.index[rows])
        texts = texts[~self._exact[texts]]
        if len(texts):
            self._points.table[texts] = embedded(self._finer, [self._texts[text] for text in texts])
            self._exact[texts] = True

    def similarity(self, first: "Places", second: "Places") -> "NDArray[np.float64]":
        """How near pairs of rows are, (P,), (P,) → (P,), as the report and removed.jsonl show it: 0 to 1."""
        import numpy as np

        near: NDArray[np.float64] = np.clip(self._points.similarity(first, second), 0, 1).round(4)
        return near

    def centrality(self, rows: "Places", labels: "Places") -> "NDArray[np.float64]":
        """How near each of these rows is to its group in the mean, (M,), rounded so that equals are equal.

        Args:
            rows: M rows, rising.
            labels: The group of each.
        """
        import numpy as np

        _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        score = np.zeros(len(rows))
        shared = np.flatnonzero(sizes[place] > 2)  # alone or in a pair, all are equally central
        order = shared[np.argsort(place[shared], kind="stable")]
        if not len(order):
            return score
        self._sharpen(rows[order])
        starts = np.flatnonzero(np.diff(place[order], prepend=-1))
        spread = np.diff(starts, append=len(order))
        for side in range(self._points.index.shape[1]):
            vectors = self._points.table[self._points.index[rows[order], side]].astype(np.float64)
            middle = np.repeat(np.add.reduceat(vectors, starts), spread, axis=0)
            score[order] += np.einsum("pd,pd->p", vectors, middle)
        return np.round(score / sizes[place], 4)
