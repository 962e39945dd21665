"""Training rows kept apart from evaluation rows, with an examination or without one."""

from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from foundry.examine import Examiner, unexamined
from foundry.hardware import Machine
from foundry.records import Checkpoint, Dataset, Decontamination, Pruned, Verdict


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

    def separate(self, pruned: Pruned, dataset: Dataset) -> tuple[Pruned, Decontamination | None]:
        """Compare with the held-out rows, if there are any, and with those in `decontaminate_against`."""
        from foundry.examine.decontaminate import decontaminate, read
        from foundry.examine.overlap import Reference

        held_out = [Reference("held out", dataset.eval)] if dataset.eval else []
        references = [*held_out, *(read(Path(path)) for path in self.decontaminate_against)]
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
