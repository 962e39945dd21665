"""Finds the shards of a set that `foundry curate` wrote, wherever it lies now."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foundry.data.places import Place, called, located, resolve
from foundry.data.reading import reachable
from foundry.errors import DataError
from foundry.lot import LOT, SHORT
from foundry.shards import HELD_OUT, TRAIN


@dataclass(frozen=True)
class CuratedSet:
    """A curated set: its lot number, and its shards with the digests that the lot gives them."""

    lot: str
    train: Sequence[Place]
    held_out: Sequence[Place]

    def notes(self) -> tuple[str, ...]:
        """What to say of it."""
        shards = len(self.train) + len(self.held_out)
        return (f"curated set, lot {self.lot[:SHORT]}, {shards:,} shard{'s'[: shards > 1]}",)


def find_curated(path: str, root: str | None = None) -> CuratedSet | None:
    """Look whether a path is the folder of a curated set.

    Args:
        path: As in `places.find`.
        root: Where names after `synthesis://` are looked up.

    Raises:
        DataError: It is one, but its lot cannot be read.
    """
    with reachable(path):
        system, folder = located(resolve(path, root), path)
        folder = folder.rstrip("/")
        place = f"{folder}/{LOT}"
        if path.startswith(("http://", "https://")) or not system.isfile(place):
            return None
        try:
            record = json.loads(system.cat_file(place))
            files = record["contents"]["files"]
            lot = str(record["lot"])
        except (ValueError, LookupError, TypeError, RecursionError):
            raise DataError(f"data.path: {called(system, place)}: not the lot of a curated set") from None
        shards = {split: _shards(system, folder, files, split) for split in (TRAIN, HELD_OUT)}
    return CuratedSet(lot, shards[TRAIN], shards[HELD_OUT]) if shards[TRAIN] else None


def _shards(system: Any, folder: str, files: Mapping[str, str], split: str) -> list[Place]:
    names = sorted(name for name in files if name.startswith(f"{split}/") and name.endswith(".parquet"))
    return [Place(called(system, f"{folder}/{name}"), f"{folder}/{name}", system, files[name]) for name in names]
