"""Examination: what the student can do that its baseline could not, and whether that is enough."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from foundry.config import Component
from foundry.hardware import Machine
from foundry.records import Answerer, Checkpoint, Dataset, Decontamination, Pruned, Row, Verdict

__all__ = ["Examiner", "Metric", "Score", "Verdict"]


class Examiner(Component, ABC):
    """Judges a checkpoint."""

    examines: ClassVar[bool] = True

    @abstractmethod
    def examine(
        self,
        checkpoint: Checkpoint,
        dataset: Dataset,
        machine: Machine,
        parents: Mapping[str, Checkpoint] | None = None,
    ) -> Verdict:
        """Measure the checkpoint and its baseline.

        Args:
            checkpoint: What is judged.
            dataset: The job's rows; the held-out ones are asked.
            machine: What it is computed on.
            parents: What a merge was made of, by name; each is measured like the checkpoint.

        Raises:
            DataError: The held-out rows do not suit a metric.
        """

    def judge(
        self,
        subject: Checkpoint | Answerer,  # noqa: ARG002
        dataset: Dataset,  # noqa: ARG002
        machine: Machine,  # noqa: ARG002
    ) -> Mapping[str, float]:
        """Measure something else on the same questions, a packaged file for instance: values by a metric's name."""
        return {}

    def check(self, dataset: Dataset) -> None:
        """Look before training whether the held-out rows can be examined at all.

        Raises:
            DataError: They cannot.
        """

    def separate(self, pruned: Pruned, dataset: Dataset) -> tuple[Pruned, Decontamination | None]:  # noqa: ARG002
        """Part the training rows from the evaluation rows; nothing is compared where nothing is examined.

        Raises:
            DataError: They overlap, and that is not allowed; or an evaluation file cannot be read.
        """
        return pruned, None


def unexamined(checkpoint: Checkpoint, dataset: Dataset) -> Verdict:
    """The verdict where nothing is measured; it does not let anything be published."""
    return Verdict(passed=True, measurements=(), eval_sha256=dataset.eval_sha256, lot=checkpoint.lot, examined=False)


@dataclass(frozen=True)
class Score:
    """A metric's value (0 to 1), which answers were right, and numbers that explain it."""

    value: float
    right: Sequence[bool]
    details: Mapping[str, float] = field(default_factory=dict)


class Metric(Component, ABC):
    """One thing that is measured on answers to held-out questions."""

    max_new_tokens: int
    batch_size: int

    @abstractmethod
    def score(self, rows: Sequence[Row], answers: Sequence[str]) -> Score:
        """Judge the answers to the rows' prompts."""

    @abstractmethod
    def check(self, rows: Sequence[Row]) -> None:
        """Look whether the rows have references that this metric can read.

        Raises:
            DataError: They have not.
        """
