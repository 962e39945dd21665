"""Data: rows that people have, turned into one of the three shapes that methods learn from."""

from abc import ABC, abstractmethod

from foundry.config import Component
from foundry.records import Dataset

__all__ = ["Dataset", "Source"]


class Source(Component, ABC):
    """Where rows come from."""

    @abstractmethod
    def load(self) -> Dataset:
        """Read every row, quarantine those that cannot be used, and digest the rest.

        Raises:
            DataError: The source is missing, empty, or has too many bad rows.
        """
