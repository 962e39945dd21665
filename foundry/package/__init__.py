"""Packaging: deliverables beside the checkpoint, such as GGUF files."""

from abc import ABC, abstractmethod
from pathlib import Path

from foundry.config import Component
from foundry.records import Checkpoint, Package

__all__ = ["Package", "Packager"]


class Packager(Component, ABC):
    """Makes extra deliverables of a checkpoint."""

    @abstractmethod
    def package(self, checkpoint: Checkpoint, run_dir: Path) -> Package:
        """Write them to `run_dir/package` with their checksums."""
