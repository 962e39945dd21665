"""Harmless prompts that are refused."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from foundry.examine import Score
from foundry.examine.answered import Answered
from foundry.examine.safety_rate import refused
from foundry.records import Row
from foundry.source import Source


class OverRefusal(Answered):
    """The share of harmless prompts that are refused, or answered with something else altogether; lower is better.

    Attributes:
        data: The harmless prompts.
    """

    lower_is_better: ClassVar[bool] = True
    reads_answers: ClassVar[bool] = False

    data: Source
    max_new_tokens: int = Field(32, ge=1)
    batch_size: int = Field(32, ge=1)

    def score(self, rows: Sequence[Row], evidence: Sequence[str]) -> Score:
        """Judge the answers by the rules of `refusal`, as `safety_rate` does."""
        return refused(rows, evidence)

    def expected(self, row: Row) -> str:  # noqa: ARG002
        """An answer, in whatever words."""
        return "an answer"
