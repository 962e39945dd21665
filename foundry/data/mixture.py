"""Several sources mixed by weight."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from foundry.config import listed, nearest
from foundry.data import Source
from foundry.errors import DataError
from foundry.records import Dataset
from foundry.rows import Rows


class Mixture(Source):
    """Training rows in given shares, none of them twice; which rows of a part come in is drawn by `seed`.

    Held-out rows are those of every part. Training rows that are held out in another part are dropped.

    Attributes:
        parts: The sources, by name.
        weights: How the training rows are shared out, by a part's name; 1 where none is given.
        seed: Draws the rows and their order.
        limit: Keep at most so many training rows, give or take the rounding of each share.
    """

    parts: dict[str, Source] = Field(min_length=1)
    weights: dict[str, float] = Field(default_factory=dict)
    seed: int = Field(1, ge=0)
    limit: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _weights_have_parts(self) -> Self:
        for name, weight in self.weights.items():
            if name not in self.parts:
                raise ValueError(f"weights.{name}: no such part{nearest(name, self.parts)} ({listed(self.parts)})")
            if weight <= 0:
                raise ValueError(f"weights.{name}: found {weight}, expected more than 0; leave the part out instead")
        return self

    def load(self) -> Dataset:
        """Load every part and mix them.

        Raises:
            DataError: A part cannot be loaded, has too few rows, or has another shape than the others.
        """
        loaded = {name: part.load() for name, part in self.parts.items()}
        shapes = {name: dataset.shape for name, dataset in loaded.items()}
        if len(set(shapes.values())) > 1:
            found = ", ".join(f"{name} has {shape} rows" for name, shape in shapes.items())
            raise DataError(f"data.parts: expected one shape, but {found}")
        evaluation, _ = Rows.of(*(dataset.eval for dataset in loaded.values())).drawn(self.seed)
        rows = {name: self._usable(dataset, evaluation) for name, dataset in loaded.items()}
        scale = self._scale(rows)
        taken = {name: part[: round(scale * self.weights.get(name, 1.0))] for name, part in rows.items()}
        train, _ = Rows.of(*taken.values()).drawn(self.seed)
        if not train:
            counts = ", ".join(f"{name} {len(part):,}" for name, part in rows.items())
            raise DataError(f"data.parts: no training row is left in this mixture; rows to take from: {counts}")
        return Dataset(
            name="+".join(self.parts),
            shape=next(iter(shapes.values())),
            train=train,
            eval=evaluation,
            sha256=train.sha256(),
            eval_sha256=evaluation.sha256(),
            quarantined=[bad for dataset in loaded.values() for bad in dataset.quarantined],
            parents=sorted({parent for dataset in loaded.values() for parent in dataset.parents}),
            notes=[note for name in rows for note in _notes(name, loaded[name], len(rows[name]), len(taken[name]))],
        )

    def _usable(self, dataset: Dataset, evaluation: Rows) -> Rows:
        """The part's training rows that are held out nowhere, in the order drawn."""
        rows, _ = Rows.of(dataset.train).drawn(self.seed)
        held = set(map(bytes, evaluation.digests()))
        return rows.select([i for i, digest in enumerate(map(bytes, rows.digests())) if digest not in held])

    def _scale(self, rows: Mapping[str, Rows]) -> float:
        """Rows for each unit of weight: as many as the part that is shortest for its weight can give."""
        weights = {name: self.weights.get(name, 1.0) for name in rows}
        most = min(len(rows[name]) / weight for name, weight in weights.items())
        return most if self.limit is None else min(most, self.limit / sum(weights.values()))


def _notes(name: str, dataset: Dataset, usable: int, taken: int) -> list[str]:
    dropped = len(dataset.train) - usable
    held = f", {dropped:,} held out elsewhere" if dropped else ""
    return [f"{name}: {taken:,} of {len(dataset.train):,} rows{held}", *(f"{name}: {note}" for note in dataset.notes)]
