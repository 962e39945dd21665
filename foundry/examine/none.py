"""No examination."""

from collections.abc import Mapping
from typing import ClassVar

from foundry.examine import Examiner, unexamined
from foundry.hardware import Machine
from foundry.records import Checkpoint, Dataset, Verdict


class NoExam(Examiner):
    """Measures nothing; its verdict does not let anything be published."""

    examines: ClassVar[bool] = False

    def examine(
        self,
        checkpoint: Checkpoint,
        dataset: Dataset,
        machine: Machine,  # noqa: ARG002
        parents: Mapping[str, Checkpoint] | None = None,  # noqa: ARG002
    ) -> Verdict:
        """Return a verdict that says so."""
        return unexamined(checkpoint, dataset)
