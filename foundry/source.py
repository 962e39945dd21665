"""Where rows come from: what the data room implements, and what a job or a metric may ask for rows."""

from abc import ABC, abstractmethod
from typing import ClassVar

from foundry.config import Component
from foundry.records import Dataset


class Source(Component, ABC):
    """Where rows come from."""

    home: ClassVar[str] = "foundry.data"

    @abstractmethod
    def load(self) -> Dataset:
        """Read every row, quarantine those that cannot be used, and digest the rest.

        Raises:
            DataError: The source is missing, empty, or has too many bad rows.
        """
