"""Balanced accuracy on yes/no questions."""

import re
from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from foundry.errors import DataError
from foundry.examine import Metric, Score
from foundry.records import Row

_WORD = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


class LogicScore(Metric):
    """The mean of the recall on yes and the recall on no: always-yes scores 0.5 whatever the mix.

    Answers are read leniently, so that a chatty baseline is not marked down for its manners: the first
    yes or no counts. An answer with neither is wrong.

    Attributes:
        max_new_tokens: Tokens that an answer may have.
        batch_size: Questions answered at a time.
    """

    max_new_tokens: int = Field(8, ge=1)
    batch_size: int = Field(16, ge=1)

    def check(self, rows: Sequence[Row]) -> None:
        """Both answers must occur among the references.

        Raises:
            DataError: They do not.
        """
        counts = Counter(_read(_reference(row)) for row in rows)
        if counts[None] or not (counts["yes"] and counts["no"]):
            found = f"{counts['yes']} yes, {counts['no']} no, {counts[None]} others"
            raise DataError(
                f"examine.metrics.logic_score: expected held-out rows answered Yes or No, and both of them; "
                f"found {found} (examine=none publish=none goes without)"
            )

    def score(self, rows: Sequence[Row], answers: Sequence[str]) -> Score:
        """Judge the answers; `details` hold the majority rate, both recalls and the share without yes or no."""
        wanted = [_read(_reference(row)) for row in rows]
        given = [_read(answer) for answer in answers]
        right = [w == g for w, g in zip(wanted, given, strict=True)]
        recall = {w: _mean([r for r, ref in zip(right, wanted, strict=True) if ref == w]) for w in ("yes", "no")}
        details = {
            "majority_rate": max(Counter(wanted).values()) / len(wanted),
            "accuracy": _mean(right),
            "recall_yes": recall["yes"],
            "recall_no": recall["no"],
            "unreadable": _mean([g is None for g in given]),
        }
        return Score((recall["yes"] + recall["no"]) / 2, right, details)


def _reference(row: Row) -> str:
    return str(row["completion"][-1]["content"]) if "completion" in row else ""


def _read(answer: str) -> str | None:
    found = _WORD.search(answer)
    return found.group(1).lower() if found else None


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0
