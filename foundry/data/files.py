"""Rows from files: local, in folders and globs, or behind any URI that fsspec knows."""

import re
from collections.abc import Iterable, Iterator

from pydantic import Field

from foundry.data.faults import Entry
from foundry.data.intake import Intake
from foundry.data.places import find
from foundry.data.reading import ENDINGS, records


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

    def _sources(self) -> Iterator[tuple[str, Iterable[Entry]]]:
        for place in find(self.path, self.synthesis_root):
            with place.open() as file:
                yield place.name, records(file, place.path)
