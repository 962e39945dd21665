"""Rows from files: local, in folders and globs, or behind any URI that fsspec knows."""

import re

from pydantic import Field

from foundry.data.curated import find_curated
from foundry.data.harvest import Harvest
from foundry.data.intake import Intake, Sources
from foundry.data.places import Place, find
from foundry.data.reading import ENDINGS, records
from foundry.engine import spread


class Files(Intake):
    """JSON Lines, JSON, CSV, TSV and Parquet, the text ones also compressed with gzip or zstd.

    Attributes:
        path: A file, folder, glob or URI, or `synthesis://name`.
        synthesis_root: The folder or URI below which `synthesis://name` is looked up.
    """

    path: str = Field(min_length=1)
    synthesis_root: str | None = Field(None, min_length=1)

    def _name(self) -> str:
        """The last part of the path that is no pattern, without its endings."""
        parts = [part for part in re.split(r"[/\\]", self.path.split("?")[0]) if part and not set(part) & set("*[")]
        return ENDINGS.sub("", parts[-1]) if parts else "files"

    def _sources(self) -> Sources:
        curated = find_curated(self.path, self.synthesis_root)
        if curated is None:
            return Sources(spread(self.read, find(self.path, self.synthesis_root)))
        held_out = spread(self.read, curated.held_out) if curated.held_out else None
        return Sources(spread(self.read, curated.train), held_out, curated.notes(), (curated.lot,))

    def read(self, place: Place) -> Harvest:
        """Read the records of one file."""
        harvest = self._harvest()
        with place.open() as file:
            harvest.read(place.name, records(file, place.path))
        return harvest
