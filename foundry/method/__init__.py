"""Methods: an objective crossed with an adapter turns rows into a checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

from pydantic import Field

from foundry.compute import Compute
from foundry.config import Component
from foundry.hardware import Machine
from foundry.records import BaseModel, Checkpoint, Pruned, Shape

__all__ = ["Checkpoint", "Method", "Observer"]


class Observer(Protocol):
    """Whoever wants to see a training run's numbers."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Take the metrics of a step; must return at once."""


class Method(Component, ABC):
    """How a student learns.

    Attributes:
        strict_hardware_check: Whether an estimate above the free memory stops the job or only warns.
    """

    shapes: ClassVar[frozenset[Shape]]
    strict_hardware_check: bool = Field(default=True)

    @abstractmethod
    def estimate(self, pruned: Pruned, base: BaseModel, compute: Compute, machine: Machine) -> Mapping[str, int]:
        """Peak memory in bytes by what it is for, from rows, settings and the base's config; no weight is read."""

    @abstractmethod
    def train(
        self,
        pruned: Pruned,
        base: BaseModel,
        compute: Compute,
        machine: Machine,
        run_dir: Path,
        observer: Observer,
        resume: Path | None = None,
    ) -> Checkpoint:
        """Train and write `run_dir/model`, which appears whole or not at all.

        Raises:
            DataError: A row cannot be learnt from.
            TrainingError: The loss is not finite.
        """
