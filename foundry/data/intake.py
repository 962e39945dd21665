"""From records to a dataset: convert each, set aside what cannot be used, hold some out, digest the rest."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import Field, field_validator

from foundry.config import listed, nearest
from foundry.data import Source
from foundry.data.formats import FIELDS, Converter, Format
from foundry.data.harvest import Harvest
from foundry.errors import DataError
from foundry.records import Dataset, Shape
from foundry.rows import Rows


@dataclass(frozen=True)
class Sources:
    """What an intake reads.

    Attributes:
        rows: What each file brings in.
        held_out: What the files with held-out rows bring in; None where rows are held out by `eval_fraction`.
        notes: What to say of it, where that is not what was recognised file by file.
        parents: The lots that it was made from.
    """

    rows: Iterable[Harvest]
    held_out: Iterable[Harvest] | None = None
    notes: Sequence[str] = ()
    parents: Sequence[str] = ()


class Intake(Source):
    """A source of records in the formats that people have.

    Attributes:
        format: The records' format, or `auto` to recognise each by its fields; docs/data.md lists them.
        columns: What fields are called there → what they are called in the format, such as `{query: prompt}`.
        eval_fraction: Share of the rows held out (0 to 1); whether a row is depends on `seed` and the row alone.
            A curated set with held-out rows keeps those, and no others.
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
    def _sources(self) -> Sources:
        """What is to be read."""

    def _harvest(self) -> Harvest:
        return Harvest(Converter(self.format, self.columns, self.max_field_chars))

    def load(self) -> Dataset:
        """Read every record.

        Raises:
            DataError: There is no usable record, too many are bad, or all of them are held out.
        """
        sources = self._sources()
        shape, rows, harvest = self._gathered(sources.rows)
        drawn, lots = rows.drawn(self.seed)
        held = int((lots < self.eval_fraction).sum()) if sources.held_out is None else 0
        train, evaluation = drawn[held:][: self.limit], drawn[:held]
        if sources.held_out is not None:
            evaluation, _ = self._gathered(sources.held_out)[1].drawn(self.seed)
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
            notes=sources.notes or harvest.notes(),
            parents=sources.parents,
        )

    def _gathered(self, harvests: Iterable[Harvest]) -> tuple[Shape, Rows, Harvest]:
        whole = self._harvest()
        for harvest in harvests:
            whole.merge(harvest)
        shape, rows = whole.finished()
        whole.check(self.max_bad_fraction)
        return shape, rows, whole
