"""Packaging: deliverables beside the checkpoint, such as GGUF files."""

from abc import ABC, abstractmethod

from foundry.config import Component
from foundry.deliverables import Examined, Package
from foundry.records import BaseModel

__all__ = ["Examined", "Package", "Packager"]


class Packager(Component, ABC):
    """Makes extra deliverables of a checkpoint."""

    @abstractmethod
    def package(self, examined: Examined) -> Package:
        """Write them to `package/` in the run directory, whole or not at all.

        Raises:
            DataError: It cannot be packaged so.
            PublishError: The deliverables cannot be written.
        """

    def check(self, base: BaseModel) -> None:
        """Look before training whether a student of this base can be packaged here.

        Raises:
            ConfigError: A package is missing.
            DataError: It cannot.
        """
