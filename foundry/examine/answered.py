"""What metrics on written answers share: how answers are asked for, and what a row asks and expects."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from foundry.errors import DataError
from foundry.examine import Metric, Score, Subject
from foundry.records import Row


class Answered(Metric, ABC):
    """A metric on answers that are written greedily.

    Attributes:
        max_new_tokens: Tokens that an answer may have.
        batch_size: Questions answered at a time.
    """

    max_new_tokens: int = Field(8, ge=1)
    batch_size: int = Field(16, ge=1)

    def asking(self) -> Mapping[str, Any]:
        """How long answers may be, and how many are written at a time."""
        return {"kind": "answers", "max_new_tokens": self.max_new_tokens, "batch_size": self.batch_size}

    def ask(self, subject: Subject, rows: Sequence[Row], note: str) -> list[str]:
        """The answer to each row."""
        return subject.answers(rows, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size, note=note)

    def check(self, rows: Sequence[Row], name: str) -> None:
        """Each row must have a prompt.

        Raises:
            DataError: One has not.
        """
        for number, row in enumerate(rows):
            if "prompt" not in row:
                raise DataError(f"examine.metrics.{name}: held-out row {number} has no prompt, only {', '.join(row)}")

    @abstractmethod
    def score(self, rows: Sequence[Row], evidence: Sequence[str]) -> Score:
        """Judge the answers."""

    def expected(self, row: Row) -> str:
        """What the answer should be, for a person."""
        return reference(row)

    def told(self, rows: Sequence[Row], evidence: Sequence[str], index: int) -> tuple[str, str, str]:
        """The question, what is expected, and the answer."""
        return question(rows[index]), self.expected(rows[index]), evidence[index]


def question(row: Row) -> str:
    """What a row asks last."""
    return str(row["prompt"][-1]["content"]) if "prompt" in row else str(row.get("text", ""))


def reference(row: Row) -> str:
    """The right answer that a row gives, empty if none."""
    for key in ("completion", "chosen"):
        if key in row:
            return str(row[key][-1]["content"])
    return ""


def mean(values: Sequence[float]) -> float:
    """The mean, 0 of nothing."""
    return sum(values) / len(values) if values else 0.0
