"""What metrics on the likelihood of right answers share."""

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from foundry.errors import DataError
from foundry.examine import Metric, Score, Subject
from foundry.examine.answered import question, reference
from foundry.records import Row

Losses = Sequence[Sequence[float]]
"""For each row the summed loss in nats and the number of tokens, (N, 2)."""


class Likelihood(Metric, ABC):
    """A metric on the loss of the right answers' tokens; lower is better.

    Attributes:
        max_length: Tokens to which a row is cut at the end.
        batch_size: Rows taken at a time, at most.
    """

    lower_is_better: ClassVar[bool] = True
    judged: ClassVar[bool] = False

    max_length: int = Field(1024, ge=8)
    batch_size: int = Field(8, ge=1)

    def asking(self) -> Mapping[str, Any]:
        """Where rows are cut, and how many are taken at a time."""
        return {"kind": "losses", "max_length": self.max_length, "batch_size": self.batch_size}

    def ask(self, subject: Subject, rows: Sequence[Row], note: str) -> list[list[float]]:
        """The loss of each row's answer or text, and its number of tokens."""
        return subject.losses(rows, max_length=self.max_length, batch_size=self.batch_size, note=note)

    def check(self, rows: Sequence[Row], name: str) -> None:
        """Each row must have an answer, or be a text.

        Raises:
            DataError: One has neither.
        """
        for number, row in enumerate(rows):
            if not (reference(row) or row.get("text")):
                raise DataError(f"examine.metrics.{name}: held-out row {number} has no answer and is no text")

    def score(self, rows: Sequence[Row], evidence: Losses) -> Score:  # noqa: ARG002
        """The mean loss a token: rows count by their tokens, as they do in training."""
        items, weights = [total / count for total, count in evidence], [count for _, count in evidence]
        return Score(items, weights=weights, details={"tokens": int(sum(weights))})

    def told(self, rows: Sequence[Row], evidence: Losses, index: int) -> tuple[str, str, str]:
        """The question, the right answer, and its loss."""
        row, (total, count) = rows[index], evidence[index]
        asked = question(row) if "prompt" in row else ""
        return asked, reference(row) or str(row.get("text", "")), f"loss {total / count:.3f} over {count:.0f} tokens"
