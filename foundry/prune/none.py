"""No pruning."""

from foundry.prune import Pruner
from foundry.records import Dataset, Pruned


class KeepAll(Pruner):
    """Keeps every training row."""

    def prune(self, dataset: Dataset) -> Pruned:
        """Pass the rows on."""
        return Pruned(dataset.train, (), dataset.sha256, dataset.sha256)
