"""Near-copies of long texts: MinHash with banding (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3)."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foundry import console
from foundry.errors import ConfigError
from foundry.prune import Pruner
from foundry.prune.repeats import distinct, representatives, settled
from foundry.prune.texts import Compared, compared
from foundry.records import Dataset, Pruned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PERMUTATIONS = 128
BANDS = 16
_SEED = 1
_CHUNK = 4096
_WORD = re.compile(r"\w+")


class MinHash(Pruner):
    """Keeps one row of each group that is connected by pairs whose shingles overlap more than a threshold.

    Candidates share one of 16 bands of 8 of 128 permutations: a pair with Jaccard similarity 0.7 becomes one with
    probability 0.61, one with 0.8 with 0.95, one with 0.9 with 0.9999. Each is then judged by its true similarity,
    so nothing is removed by chance. Exact repeats go first, and rows with different system messages, tools or
    roles are never taken together.

    Attributes:
        threshold: Rows whose Jaccard similarity is above it say the same; at 1 only exact repeats do.
        text: What is compared; with `both`, prompts must be near and completions must be near.
        keep: Who stands for a group: the `longest` or the `first` row; of equal ones that with the smallest digest.
        shingle: What a shingle is made of, `word`s or `char`acters; case and punctuation do not count.
        ngram: How many of them; a shorter text is one shingle.
    """

    threshold: float = Field(0.8, gt=0, le=1)
    text: Compared = "both"
    keep: Literal["longest", "first"] = "longest"
    shingle: Literal["word", "char"] = "word"
    ngram: int = Field(5, ge=1, le=64)

    def prune(self, dataset: Dataset) -> Pruned:
        """Drop the near-copies.

        Raises:
            ConfigError: rensa is not installed.
        """
        import numpy as np

        found = distinct(dataset)
        texts, apart = compared(found.rows.select(found.first), self.text)
        forest = self._forest(texts, apart) if self.threshold < 1 else _Forest(len(texts))
        labels = np.array([forest.root(row) for row in range(len(texts))], np.int64)
        lengths = np.array([sum(map(len, row)) for row in texts], np.int64)
        stands = representatives(labels, lengths if self.keep == "longest" else -found.first)
        similarity = [round(self._similarity(texts[a], texts[int(b)]), 4) for a, b in enumerate(stands)]
        return settled(dataset, found, stands, similarity)

    def _forest(self, texts: Sequence[tuple[str, ...]], apart: Sequence[str]) -> "_Forest":
        forest = _Forest(len(texts))
        shingled = lru_cache(_CHUNK)(self._sets)
        for bucket in _buckets(self._signatures(texts)):
            for place, second in enumerate(bucket):
                for first in bucket[:place]:
                    if apart[first] != apart[second] or forest.root(first) == forest.root(second):
                        continue
                    if _jaccard(shingled(texts[first]), shingled(texts[second])) > self.threshold:
                        forest.join(first, second)
        return forest

    def _signatures(self, texts: Sequence[tuple[str, ...]]) -> "NDArray[np.uint32]":
        """MinHash of each row over the shingles of all of its sides, (N, 128)."""
        import numpy as np

        try:
            from rensa import RMinHash
        except ImportError as error:
            raise ConfigError(
                f"prune=minhash: rensa cannot be imported ({error}); pip install 'model-foundry[curate]'"
            ) from error
        parts = []
        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        for chunk in console.track(chunks, "minhash", f"× {_CHUNK:,} rows"):
            tokens = [
                [f"{side} {shingle}" for side, held in enumerate(self._sets(row)) for shingle in held] for row in chunk
            ]
            parts.append(np.array(RMinHash.digests_from_token_sets(tokens, PERMUTATIONS, _SEED), np.uint32))
        return np.concatenate(parts) if parts else np.empty((0, PERMUTATIONS), np.uint32)

    def _similarity(self, first: tuple[str, ...], second: tuple[str, ...]) -> float:
        return 1.0 if first == second else _jaccard(self._sets(first), self._sets(second))

    def _sets(self, texts: tuple[str, ...]) -> tuple[frozenset[str], ...]:
        return tuple(frozenset(self._shingles(text)) for text in texts)

    def _shingles(self, text: str) -> Iterator[str]:
        words = _WORD.findall(text.casefold())
        units: Sequence[str] = words if self.shingle == "word" else " ".join(words)
        joint = " " if self.shingle == "word" else ""
        for start in range(max(len(units) - self.ngram + 1, 1)):
            yield joint.join(units[start : start + self.ngram])


def _jaccard(first: Sequence[frozenset[str]], second: Sequence[frozenset[str]]) -> float:
    """Shared over all shingles, of the least alike of the sides."""
    return min(len(a & b) / len(a | b) for a, b in zip(first, second, strict=True))


def _buckets(signatures: "NDArray[np.uint32]") -> Iterator[list[int]]:
    """Rows that share a band, in their order."""
    import numpy as np

    count = len(signatures)
    width = PERMUTATIONS // BANDS
    for band in range(BANDS):
        part = (
            np.ascontiguousarray(signatures[:, band * width : (band + 1) * width]).view(f"V{4 * width}").reshape(count)
        )
        _, place = np.unique(part, return_inverse=True)
        order = np.argsort(place, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(place[order])) + 1):
            if len(bucket) > 1:
                yield bucket.tolist()


class _Forest:
    """Rows joined one pair at a time; the smallest of a group is its root."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def root(self, row: int) -> int:
        above = self._above
        while above[row] != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.root(first), self.root(second)))
        self._above[high] = low
