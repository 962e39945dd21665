"""Exact duplicates: rows whose canonical JSON is the same."""

from foundry.prune import Pruner
from foundry.records import Dataset, Pruned, Removed
from foundry.rows import Rows


class Exact(Pruner):
    """Keeps the first of each group of identical rows; which rows remain does not depend on their order."""

    def prune(self, dataset: Dataset) -> Pruned:
        """Drop the repeats; the similarity of each to its representative is 1."""
        rows = Rows.of(dataset.train)
        first: dict[bytes, int] = {}
        stands = [first.setdefault(bytes(digest), index) for index, digest in enumerate(rows.digests())]
        kept = rows.select(list(first.values()))
        removed = [Removed(i, stand, 1.0, rows[i]) for i, stand in enumerate(stands) if stand != i]
        return Pruned(kept, removed, kept.sha256(), dataset.sha256)
