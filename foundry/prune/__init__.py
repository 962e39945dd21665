"""Pruning: which training rows repeat others and are left out, with the row that stands for each."""

from abc import ABC, abstractmethod

from foundry.config import Component
from foundry.records import Dataset, Pruned

__all__ = ["Pruned", "Pruner"]


class Pruner(Component, ABC):
    """Decides which training rows stay."""

    @abstractmethod
    def prune(self, dataset: Dataset) -> Pruned:
        """Keep one representative of each group of rows that say the same."""
