"""Which rows are near each other: exact products of everything where that is quick, else within clusters.

Clusters come from spherical k-means with √N centres (Abbas et al. 2023, arXiv:2303.09540). Each row is compared
with the rows whose nearest centre is one of its own three nearest, and all of that is done twice with other
seeds: what one clustering cuts apart the other one mostly does not. The products then cost about 6 N^1.5.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, product, repeat
from typing import TYPE_CHECKING, Any

from foundry import console
from foundry.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
    Best = tuple[NDArray[np.int64], NDArray[np.float32]]
    Tile = tuple[torch.Tensor, torch.Tensor]

EXACT = 10_000
"""Up to so many rows everything is compared with everything: less than a second on two cores."""

_TILE = 2048
_PROBES = 3
_SEEDS = (1, 2)
_SAMPLE, _ROUNDS = 32, 4
"""Rows that a centre is trained on, and rounds of training: finer centres find no more pairs."""


@dataclass(frozen=True)
class Points:
    """N rows as vectors. Two rows are as near as the least near of their sides, and not at all if `apart` differs.

    Attributes:
        table: Unit vectors of the U different texts, (U, D).
        index: Which text each side of each row is, (N, S).
        apart: What must be equal for two rows to be compared, (N,).
    """

    table: "NDArray[np.float32]"
    index: "NDArray[np.int64]"
    apart: "NDArray[np.int64]"

    def __len__(self) -> int:
        return len(self.index)

    def subset(self, rows: "NDArray[np.int64]") -> "Points":
        """Some of the rows, over the same table."""
        return Points(self.table, self.index[rows], self.apart[rows])

    def similarity(self, first: "NDArray[np.int64]", second: "NDArray[np.int64]") -> "NDArray[np.float64]":
        """How near pairs of rows are, pair by pair, in float64: the same number in whatever company a pair comes.

        Args:
            first: One row of each pair, (P,).
            second: The other one, (P,).
        """
        import numpy as np

        out = np.ones(len(first))
        for start in range(0, len(first), 16 * _TILE):
            part = slice(start, start + 16 * _TILE)
            for side in range(self.index.shape[1]):
                a, b = (self.table[self.index[rows[part], side]].astype(np.float64) for rows in (first, second))
                np.minimum(out[part], np.einsum("pd,pd->p", a, b), out=out[part])
        return out


@dataclass
class Search:
    """All pairs of rows nearer than `floor`; while they are found, `nearest` learns how near each row's nearest is.

    Attributes:
        points: The rows, N of them, in an order that does not depend on how they came in.
        floor: Pairs must be nearer than this.
        nearest: Similarity of each row to its nearest other row, (N,); where clusters are used, at least this.
    """

    points: Points
    floor: float
    nearest: "NDArray[np.float32]" = field(init=False)

    def pairs(self) -> "Iterator[Pairs]":
        """Give pairs as (first, second, similarity), some thousand at a time; a pair may come more than once."""
        import numpy as np
        import torch

        count = len(self.points)
        self.nearest = np.full(count, -1, np.float32)
        self._table = torch.from_numpy(self.points.table)
        self._index = torch.from_numpy(self.points.index)
        apart = torch.from_numpy(self.points.apart)
        self._apart = None if count == 0 or bool((apart == apart[0]).all()) else apart
        self._buffers = threading.local()
        if count <= EXACT:
            everything = torch.arange(count)
            yield from self._compared([tile for tile in _tiles(everything, everything) if tile[0][0] <= tile[1][0]])
            return
        for number, seed in enumerate(_SEEDS):
            tiles = [tile for pair in zip(*self._clusters(seed), strict=True) for tile in _tiles(*pair)]
            yield from self._compared(console.track(tiles, "compare", f"clusters, {number + 1} of {len(_SEEDS)}"))

    def _compared(self, tiles: "Iterable[Tile]") -> "Iterator[Pairs]":
        """Compare tiles, one in each thread: threads that share a small product mostly wait for each other."""
        import torch

        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            ahead: deque[Future[tuple[list[Best], list[Pairs]]]] = deque()
            try:
                for tile in chain(tiles, repeat(None, 2 * threads)):
                    if len(ahead) == 2 * threads or (tile is None and ahead):
                        yield from self._learned(*ahead.popleft().result())
                    if tile is not None:
                        ahead.append(pool.submit(self._tile, *tile))
            finally:
                torch.set_num_threads(threads)  # the pool's setting would hold for every thread begun later

    def _learned(self, best: "list[Best]", pairs: "list[Pairs]") -> "list[Pairs]":
        import numpy as np

        for rows, near in best:
            self.nearest[rows] = np.maximum(self.nearest[rows], near)
        return pairs

    def _tile(self, seekers: "torch.Tensor", members: "torch.Tensor") -> "tuple[list[Best], list[Pairs]]":
        """What Q seekers and M members come to: the nearest of each, and the pairs."""
        import numpy as np
        import torch

        near = self._near(seekers, members)
        best = near.amax(1)
        pairs = []
        rows = torch.nonzero(best > self.floor).squeeze(1)
        for low in range(0, len(rows), _TILE // 4):
            part = rows[low : low + _TILE // 4]
            found = near[part]
            first, second = torch.nonzero(found > self.floor, as_tuple=True)
            if len(first):
                a, b = seekers[part[first]].numpy(), members[second].numpy()
                pairs.append((np.minimum(a, b), np.maximum(a, b), found[first, second].numpy()))
        return [(seekers.numpy(), best.numpy()), (members.numpy(), near.amax(0).numpy())], pairs

    def _near(self, seekers: "torch.Tensor", members: "torch.Tensor") -> "torch.Tensor":
        """Similarities of Q seekers to M members, (Q, M), in a buffer that the next call takes again."""
        import torch

        near = self._product("near", 0, seekers, members)
        for side in range(1, self._index.shape[1]):
            torch.minimum(near, self._product("side", side, seekers, members), out=near)
        if self._apart is not None:
            near.masked_fill_(self._apart[seekers][:, None] != self._apart[members][None], -1)
        place = torch.searchsorted(members, seekers).clamp_(max=len(members) - 1)
        own = torch.nonzero(members[place] == seekers).squeeze(1)
        near[own, place[own]] = -1
        return near

    def _product(self, name: str, side: int, seekers: "torch.Tensor", members: "torch.Tensor") -> "torch.Tensor":
        import torch

        parts = []
        for part, rows in (("left", seekers), ("right", members)):
            out = self._buffer(part, len(rows), self._table.shape[1])
            parts.append(torch.index_select(self._table, 0, self._index[rows, side], out=out))
        return torch.mm(parts[0], parts[1].T, out=self._buffer(name, len(seekers), len(members)))

    def _buffer(self, name: str, rows: int, columns: int) -> "torch.Tensor":
        """Fresh memory for every product would cost more than the product."""
        import torch

        held: torch.Tensor | None = getattr(self._buffers, name, None)
        if held is None or held.numel() < rows * columns:
            held = torch.empty(max(rows * columns, _TILE * 256))
            setattr(self._buffers, name, held)
        return held[: rows * columns].view(rows, columns)

    def _clusters(self, seed: int) -> "tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]":
        """For each cluster the rows that have it among their nearest three, and those whose nearest it is, rising."""
        import torch

        centres = self._centres(seed)
        count = len(self.points)
        parts = (torch.arange(low, min(low + 4 * _TILE, count)) for low in range(0, count, 4 * _TILE))
        top = torch.cat([(self._flat(part) @ centres.T).topk(_PROBES, dim=1).indices for part in parts])
        return _listed(top, len(centres)), _listed(top[:, :1], len(centres))

    def _centres(self, seed: int) -> "torch.Tensor":
        import numpy as np
        import torch

        faiss = load_faiss()
        count = len(self.points)
        wanted = max(round(count**0.5), _PROBES)
        drawn = np.random.default_rng(seed).choice(count, min(count, _SAMPLE * wanted), replace=False)
        sample = self._flat(torch.from_numpy(np.sort(drawn))).numpy()
        clustering = faiss.Clustering(sample.shape[1], wanted)
        clustering.spherical, clustering.seed = True, seed
        clustering.niter, clustering.min_points_per_centroid = _ROUNDS, 1
        clustering.train(sample, faiss.IndexFlatIP(sample.shape[1]))
        return torch.from_numpy(faiss.vector_to_array(clustering.centroids).reshape(wanted, -1).copy())

    def _flat(self, rows: "torch.Tensor") -> "torch.Tensor":
        """The sides of rows beside each other, (B, S·D)."""
        return self._table[self._index[rows]].flatten(1)


def _tiles(seekers: "torch.Tensor", members: "torch.Tensor") -> "list[Tile]":
    """Cut a comparison of two lists of rows into comparisons that are not too large."""
    cuts = (range(0, len(rows), _TILE) for rows in (seekers, members))
    return [(seekers[top : top + _TILE], members[low : low + _TILE]) for top, low in product(*cuts)]


def _listed(clusters: "torch.Tensor", count: int) -> "Sequence[torch.Tensor]":
    """The rows of each cluster, rising, from the clusters of each row, (N, K)."""
    import torch

    flat = clusters.flatten()
    order = torch.argsort(flat, stable=True)
    ends = torch.bincount(flat, minlength=count).cumsum(0).tolist()
    rows = order // clusters.shape[1]
    return [rows[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def load_faiss() -> Any:
    """Import faiss.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            f"prune: more than {EXACT:,} rows need faiss, which cannot be imported ({error}); "
            "pip install 'model-foundry[curate]'"
        ) from error
    return faiss
