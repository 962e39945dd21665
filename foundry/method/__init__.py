"""Methods: an objective crossed with an adapter turns rows into a checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import Field

from foundry.compute import Compute
from foundry.config import Component
from foundry.hardware import Machine, Needs
from foundry.records import BaseModel, Checkpoint, Pruned, Shape

__all__ = ["Checkpoint", "Method", "Observer", "Outlook"]


class Observer(Protocol):
    """Whoever wants to see a training run's numbers."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Take the metrics of a step; must return at once."""


@dataclass(frozen=True)
class Outlook:
    """What training would take.

    Attributes:
        line: Batch, steps, tokens and time.
        audit: What the first batch trains and what it hides.
        needs: Peak memory by what it is for.
        lengths: How many rows have which length in tokens, as bounds and count, from the shortest to the longest.
    """

    line: str
    audit: str
    needs: Needs
    lengths: Sequence[tuple[str, int]] = ()


class Method(Component, ABC):
    """How a student learns.

    Attributes:
        strict_hardware_check: Whether an estimate above the free memory stops the job or only warns.
    """

    shapes: ClassVar[frozenset[Shape]]
    trains: ClassVar[bool] = True
    strict_hardware_check: bool = Field(default=True)

    @abstractmethod
    def check(self, config: Callable[[], Mapping[str, Any]], compute: Compute, node: Machine) -> str | None:
        """Look before anything is loaded whether this can run on the node at all; a warning, or None.

        Args:
            config: Gives the base model's config.json.
            compute: Batch and precision.
            node: The machine that is planned for.

        Raises:
            HardwareError: It cannot: a package or memory is missing.
        """

    @abstractmethod
    def estimate(self, pruned: Pruned, base: BaseModel, compute: Compute, node: Machine) -> Needs:
        """Peak memory by what it is for, from rows, settings and the base's config; no weight is read."""

    @abstractmethod
    def outlook(
        self, pruned: Pruned, base: BaseModel, compute: Compute, node: Machine, machine: Machine | None
    ) -> Outlook:
        """Say what training on a node would take, without a weight; the time only where a machine is given.

        Raises:
            DataError: A row cannot be learnt from.
        """

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
