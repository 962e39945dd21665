"""Models: a base model made ready on disk, whatever form it comes in."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from foundry.config import Component
from foundry.records import BaseModel

__all__ = ["BaseModel", "ModelSource"]


class ModelSource(Component, ABC):
    """Where the base model comes from."""

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
