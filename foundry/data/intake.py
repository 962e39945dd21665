"""From records to a dataset: convert each, set aside what cannot be used, hold some out, digest the rest."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator

from pydantic import Field, field_validator

from foundry.config import listed, nearest
from foundry.data import Source
from foundry.data.faults import Entry
from foundry.data.formats import FIELDS, Converter, Format
from foundry.data.harvest import Harvest
from foundry.errors import DataError
from foundry.records import Dataset


class Intake(Source):
    """A source of records in the formats that people have.

    Attributes:
        format: The records' format, or `auto` to recognise each by its fields; docs/data.md lists them.
        columns: What fields are called there → what they are called in the format, such as `{query: prompt}`.
        eval_fraction: Share of the rows held out (0 to 1); whether a row is depends on `seed` and the row alone.
        seed: Draws the held-out rows and the order of the others.
        limit: Keep at most so many training rows, drawn by `seed`.
        max_bad_fraction: Share of bad records, or of files that break off, above which the job stops (0 to 1).
        max_field_chars: Characters that a field may have; a record with a longer one is bad.
    """

    format: Format = "auto"
    columns: dict[str, str] = Field(default_factory=dict)
    eval_fraction: float = Field(0.1, ge=0, lt=1)
    seed: int = Field(1, ge=0)
    limit: int | None = Field(None, ge=1)
    max_bad_fraction: float = Field(0.01, ge=0, le=1)
    max_field_chars: int = Field(1_000_000, ge=1)

    @field_validator("columns")
    @classmethod
    def _targets_exist(cls, columns: dict[str, str]) -> dict[str, str]:
        for name, target in columns.items():
            if target not in FIELDS:
                raise ValueError(f"{name}: found {target!r}{nearest(target, FIELDS)} (allowed: {listed(FIELDS)})")
        if len(set(columns.values())) < len(columns):
            raise ValueError("two fields become the same one; expected each to become another")
        return columns

    @abstractmethod
    def _name(self) -> str:
        """What the dataset is called."""

    @abstractmethod
    def _sources(self) -> Iterator[tuple[str, Iterable[Entry]]]:
        """Each file's name and its records."""

    def load(self) -> Dataset:
        """Read every record.

        Raises:
            DataError: There is no usable record, too many are bad, or all of them are held out.
        """
        harvest = Harvest(Converter(self.format, self.columns, self.max_field_chars))
        for name, entries in self._sources():
            harvest.read(name, entries)
        shape, rows = harvest.finished()
        harvest.check(self.max_bad_fraction)
        drawn, lots = rows.drawn(self.seed)
        held = int((lots < self.eval_fraction).sum())
        train, evaluation = drawn[held:][: self.limit], drawn[:held]
        if not train:
            raise DataError(f"data: every row is held out; lower data.eval_fraction={self.eval_fraction}")
        return Dataset(
            name=self._name(),
            shape=shape,
            train=train,
            eval=evaluation,
            sha256=train.sha256(),
            eval_sha256=evaluation.sha256(),
            quarantined=harvest.quarantined,
            notes=harvest.notes(),
        )
