"""Embedders: texts → unit vectors, and the vectors that earlier runs left in the cache."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

from foundry import console
from foundry.engine import spread
from foundry.prune.vectors import VectorCache, key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_CHUNK = 2048
"""Texts embedded between two steps of the progress bar; sorted by length among each other."""

_SHARD = 16 * _CHUNK
"""Texts whose vectors may be lost when a run is killed."""


class Embedder(ABC):
    """Turns texts into vectors whose direction is their meaning.

    Attributes:
        name: What a person calls it.
        digest: Digest of all that its vectors depend on besides the text.
        slack: How far a cosine of two of its vectors may be off.
    """

    name: str
    digest: str
    slack: float = 1e-5

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> "Vectors":
        """Embed texts.

        Returns:
            (N, D), of any length but zero.
        """

    def exact(self) -> Self:
        """The same embedder at full precision, to decide what lies within the slack."""
        return self


def embedded(embedder: Embedder, texts: Sequence[str]) -> "Vectors":
    """Embed different texts, those that the cache knows from there.

    The vectors pass through float16 whether they were cached or not, so that a second run sees the same numbers.

    Returns:
        (N, D), each of length 1.
    """
    import numpy as np

    cache = VectorCache(embedder.digest)
    keys = [key(text) for text in texts]
    places, vectors = cache.find(keys)
    missing = [place for place in range(len(texts)) if places[place] < 0]
    fresh: list[NDArray[np.float16]] = []
    done = 0
    chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
    results = spread(partial(_made, embedder), [[texts[place] for place in chunk] for chunk in chunks])
    for chunk in console.track(chunks, "embed", f"× {_CHUNK:,} texts with {embedder.name}") if chunks else ():
        fresh.append(next(results))
        if sum(map(len, fresh[done:])) >= _SHARD or chunk is chunks[-1]:
            first = done * _CHUNK
            rows = np.concatenate(fresh[done:])
            cache.add([keys[place] for place in missing[first : first + len(rows)]], rows)
            done = len(fresh)
    if fresh:
        new = np.concatenate(fresh)
        table = np.empty((len(texts), new.shape[1]), np.float16)
        table[missing] = new
        known = places >= 0
        if known.any():
            table[known] = vectors[places[known]]
    else:
        table = vectors[places]
    return _unit(table)


def _made(embedder: Embedder, texts: Sequence[str]) -> "NDArray[np.float16]":
    return _halved(embedder.embed(texts))


def _halved(vectors: "NDArray[np.floating]") -> "NDArray[np.float16]":
    import numpy as np

    return _unit(vectors).astype(np.float16)


def _unit(vectors: "NDArray[np.floating]") -> "Vectors":
    import numpy as np

    wide = vectors.astype(np.float32)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return wide
