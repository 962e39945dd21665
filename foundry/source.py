"""Where rows and base models come from: what the rooms of data and models implement, and other rooms ask."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from foundry.config import Component
from foundry.records import BaseModel, Dataset


class Source(Component, ABC):
    """Where rows come from."""

    home: ClassVar[str] = "foundry.data"

    @abstractmethod
    def load(self) -> Dataset:
        """Read every row, quarantine those that cannot be used, and digest the rest.

        Raises:
            DataError: The source is missing, empty, or has too many bad rows.
        """


class ModelSource(Component, ABC):
    """Where the base model comes from."""

    home: ClassVar[str] = "foundry.model"

    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """The model's config.json, or what it will be, without its weights.

        Raises:
            DataError: There is no such model.
        """

    @abstractmethod
    def fetch(self) -> BaseModel:
        """Bring the model into a local folder of safetensors, config and tokenizer, and digest its files.

        Raises:
            DataError: There is no such model, or its files cannot be used safely.
        """
