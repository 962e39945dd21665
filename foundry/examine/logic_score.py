"""Questions with one right answer."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Self

from pydantic import model_validator

from foundry.errors import DataError
from foundry.examine import Score
from foundry.examine.answered import Answered, mean, reference
from foundry.examine.matching import Match, read_yes_no, reader, same, task_scores, unreadable
from foundry.records import Row

_WANTED = {
    "yes_no": "answered Yes or No",
    "exact": "with an answer",
    "numeric": "whose answer has a number",
    "regex": "whose answer has the pattern",
    "task": "of reasoning-gym (data=reasoning_gym)",
}


class LogicScore(Answered):
    """The share of right answers; of yes and no, the mean of both recalls, so that always-yes scores 0.5.

    Answers are read leniently, so that a chatty baseline is not marked down for its manners. An answer in which
    nothing is found is wrong.

    Attributes:
        match: `yes_no`: the first yes or no counts. `exact`: the whole answer, case, outer punctuation and spaces
            aside. `numeric`: the last number. `regex`: the first match of `pattern`, or its first group. `task`:
            reasoning-gym's own `score_answer`, from 0 to 1.
        pattern: For `regex`; it is looked for in answer and reference alike.
    """

    match: Match = "yes_no"
    pattern: str | None = None

    @model_validator(mode="after")
    def _pattern_for_regex(self) -> Self:
        if (self.match == "regex") != (self.pattern is not None):
            raise ValueError("pattern belongs to match=regex, and match=regex needs one")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"pattern: found {self.pattern!r}, which is no regular expression: {error}") from None
        return self

    def check(self, rows: Sequence[Row], name: str) -> None:
        """Every reference must be readable, and of yes and no both must occur.

        Raises:
            DataError: They do not.
        """
        super().check(rows, name)
        wanted = f"examine.metrics.{name}: expected held-out rows {_WANTED[self.match]}"
        if self.match == "yes_no":
            counts = Counter(read_yes_no(reference(row)) for row in rows)
            if counts[None] or not (counts["yes"] and counts["no"]):
                found = f"{counts['yes']} yes, {counts['no']} no, {counts[None]} others"
                raise DataError(
                    f"{wanted}, and both of them; found {found}; match=exact, numeric, regex or task reads other "
                    "answers (examine=none publish=none goes without)"
                )
        elif (number := unreadable(rows, self.match, self.pattern)) is not None:
            raise DataError(f"{wanted}; row {number} is answered {reference(rows[number])!r:.100}")

    def score(self, rows: Sequence[Row], evidence: Sequence[str]) -> Score:
        """Judge the answers; `details` hold the majority rate, and of yes and no both recalls."""
        if self.match == "task":
            scores = task_scores(rows, evidence)
            return Score(scores, details={"wholly_right": mean([score >= 1 for score in scores])})
        read = reader(self.match, self.pattern)
        wanted, given = [read(reference(row)) for row in rows], [read(answer) for answer in evidence]
        right = [float(same(w, g)) for w, g in zip(wanted, given, strict=True)]
        details = {
            "majority_rate": max(Counter(wanted).values()) / len(wanted),
            "unreadable": mean([g is None for g in given]),
        }
        if self.match != "yes_no":
            return Score(right, details=details)
        recall = {
            f"recall_{w}": mean([r for r, ref in zip(right, wanted, strict=True) if ref == w]) for w in ("yes", "no")
        }
        return Score(right, classes=wanted, details={**details, "accuracy": mean(right), **recall})
