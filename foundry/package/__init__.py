"""Packaging: deliverables beside the checkpoint, such as GGUF files."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from foundry.config import Component
from foundry.hardware import Machine
from foundry.records import BaseModel, Checkpoint, Judge, Package, Row, Verdict

__all__ = ["Package", "Packager"]


class Packager(Component, ABC):
    """Makes extra deliverables of a checkpoint."""

    @abstractmethod
    def package(
        self,
        checkpoint: Checkpoint,
        run_dir: Path,
        learnt: Sequence[Row],
        held_out: Sequence[Row],
        verdict: Verdict,
        machine: Machine,
        judge: Judge,
    ) -> Package:
        """Write them to `run_dir/package`, whole or not at all.

        Args:
            checkpoint: What is packaged; it has passed its examination.
            run_dir: The run directory, whose records say how it came about.
            learnt: The rows that it learnt from; none for a merge.
            held_out: The rows that it was examined on.
            verdict: The examination's outcome.
            machine: What it is computed on.
            judge: Measures a deliverable as the examination measured the checkpoint.

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
