"""Training rows kept apart from evaluation rows, with an examination or without one."""

from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from foundry.examine import Examiner, unexamined
from foundry.hardware import Machine
from foundry.records import Checkpoint, Dataset, Decontamination, Pruned, Verdict

if TYPE_CHECKING:
    from foundry.examine.overlap import Reference


class Separating(Examiner, ABC):
    """An examiner that compares training rows with evaluation rows before training.

    Attributes:
        decontaminate: What is done about training rows that overlap evaluation rows.
        decontaminate_ngram: Words in an n-gram.
        decontaminate_against: Files of further evaluation rows (JSONL, or a text a line).
    """

    decontaminate: Literal["drop", "fail", "report"] = "drop"
    decontaminate_ngram: Literal[8, 13] = 13
    decontaminate_against: tuple[str, ...] = ()

    def references(self, dataset: Dataset) -> "list[Reference]":
        """The sets of evaluation rows that belong to the examination itself: the held-out rows, if there are any."""
        from foundry.examine.overlap import Reference

        return [Reference("held out", dataset.eval)] if dataset.eval else []

    def separate(self, pruned: Pruned, dataset: Dataset) -> tuple[Pruned, Decontamination | None]:
        """Compare with the evaluation rows, if there are any, and with those in `decontaminate_against`."""
        from foundry.examine.decontaminate import decontaminate, read

        references = [*self.references(dataset), *(read(Path(path)) for path in self.decontaminate_against)]
        if not references:
            return pruned, None
        return decontaminate(pruned, references, self.decontaminate, self.decontaminate_ngram)


class Separate(Separating):
    """Keeps the rows apart and measures nothing; its verdict does not let anything be published."""

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
