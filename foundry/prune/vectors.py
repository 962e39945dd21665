"""Vectors kept between runs: shards that appear whole and are never changed, so any number of jobs may write."""

import hashlib
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foundry import console
from foundry.run import cache_root

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEY = 16
"""Bytes of a text's SHA-256 that name its vector."""


def key(text: str) -> bytes:
    """What a text's vector is filed under."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY]


class VectorCache:
    """The vectors of one embedder: folders of `keys.npy` and `vectors.npy`, below `embeddings/` in the cache."""

    def __init__(self, digest: str) -> None:
        self.folder = cache_root() / "embeddings" / digest

    def find(self, keys: Sequence[bytes]) -> "tuple[NDArray[np.int64], NDArray[np.float16]]":
        """Look vectors up.

        Returns:
            For each key its row among the vectors or -1, (N,); the vectors found, (M, D).
        """
        import numpy as np

        wanted = np.array(keys, f"S{_KEY}")
        places = np.full(len(wanted), -1, np.int64)
        found: list[NDArray[np.float16]] = []
        count = 0
        for shard in sorted(self.folder.glob("[!.]*")):
            rows, hits = _lookup(shard, wanted, places)
            if len(hits):
                places[hits] = count + np.arange(len(hits))
                found.append(rows)
                count += len(hits)
        return places, np.concatenate(found) if found else np.empty((0, 0), np.float16)

    def add(self, keys: Sequence[bytes], vectors: "NDArray[np.float16]") -> None:
        """File vectors; a cache that cannot be written is only warned about."""
        import numpy as np

        scratch = self.folder / f".{secrets.token_hex(8)}"
        order = np.argsort(np.array(keys, f"S{_KEY}"))
        try:
            scratch.mkdir(parents=True)
            np.save(scratch / "keys.npy", np.array(keys, f"S{_KEY}")[order])
            np.save(scratch / "vectors.npy", vectors[order])
            scratch.rename(self.folder / scratch.name.removeprefix("."))
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            console.warn(f"{self.folder}: vectors are not kept: {error.strerror or error}")


def _lookup(
    shard: Path, wanted: "NDArray[np.bytes_]", places: "NDArray[np.int64]"
) -> "tuple[NDArray[np.float16], NDArray[np.int64]]":
    """The vectors in a shard for those keys that have no place yet, and which keys these are."""
    import numpy as np

    nothing = np.empty((0, 0), np.float16), np.empty(0, np.int64)
    try:
        keys = np.load(shard / "keys.npy", allow_pickle=False)
        vectors = np.load(shard / "vectors.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return nothing  # damaged: what was in it is made again
    if not len(keys) or keys.dtype != wanted.dtype or len(keys) != len(vectors):
        return nothing
    spots = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    hits = np.flatnonzero((keys[spots] == wanted) & (places < 0))
    return np.asarray(vectors[spots[hits]]), hits
