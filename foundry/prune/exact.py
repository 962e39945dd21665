"""Exact duplicates: rows whose canonical JSON is the same."""

from foundry.lot import digest, digest_rows
from foundry.prune import Pruner
from foundry.records import Dataset, Pruned, Removed, Row


class Exact(Pruner):
    """Keeps the first of each group of identical rows; which rows remain does not depend on their order."""

    def prune(self, dataset: Dataset) -> Pruned:
        """Drop the repeats; the similarity of each to its representative is 1."""
        first: dict[str, int] = {}
        kept: list[Row] = []
        removed: list[Removed] = []
        for index, row in enumerate(dataset.train):
            representative = first.setdefault(digest(row), index)
            if representative == index:
                kept.append(row)
            else:
                removed.append(Removed(index, representative, 1.0, row))
        return Pruned(kept, removed, digest_rows(kept), dataset.sha256)
