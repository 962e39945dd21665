"""The search for near rows beside faiss: a flat index (exact) and an IVF one, at 10k and 100k × 384, cosine > 0.95.

The vectors are drawn around topics, and a fifth of them are copies of others at a cosine of 0.91 to 1; the peer's
pairs say which were to be found. Medians of five alternating rounds; at 100k one round of the flat index, which
takes most of a minute, beside five of ours. `FOUNDRY_BENCH_MILLION=1` adds a million vectors, ours alone.
"""

import math
import os
import time
from itertools import pairwise
from statistics import median

import numpy as np

SIZE = 384
THRESHOLD = 0.95
ROUNDS = {10_000: (5, 5), 100_000: (5, 1), 1_000_000: (1, 0)}


def vectors(count, topics=True, seed=1):
    """Unit vectors with near-copies, in any order."""
    draw = np.random.default_rng(seed)
    fresh = int(count * 0.8)
    base = draw.standard_normal((fresh, SIZE), dtype=np.float32)
    if topics:
        centres = draw.standard_normal((2000, SIZE), dtype=np.float32)
        base = centres[draw.integers(0, 2000, fresh)] + 1.2 * base
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    cosine = draw.uniform(0.91, 1, (count - fresh, 1)).astype(np.float32)
    noise = draw.standard_normal((count - fresh, SIZE), dtype=np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    copies = base[draw.integers(0, fresh, count - fresh)] * cosine + noise * np.sqrt(1 - cosine**2)
    copies /= np.linalg.norm(copies, axis=1, keepdims=True)
    return np.ascontiguousarray(np.concatenate([base, copies])[draw.permutation(count)])


def ours(table):
    """Seconds, and the pairs as one number each."""
    from foundry.prune import neighbours

    count = len(table)
    points = neighbours.Points(table, np.arange(count)[:, None], np.zeros(count, np.int64))
    begun = time.perf_counter()
    parts = [first * count + second for first, second, _ in neighbours.Search(points, THRESHOLD).pairs()]
    pairs = np.unique(np.concatenate(parts))
    return time.perf_counter() - begun, pairs


def flat(table):
    """The same of an exact search by faiss."""
    import faiss

    begun = time.perf_counter()
    index = faiss.IndexFlatIP(table.shape[1])
    index.add(table)
    return _ranged(index, table, begun)


def inverted(table):
    """The same of an index with 4 √N lists, four of which are looked at."""
    import faiss

    begun = time.perf_counter()
    lists = int(4 * math.sqrt(len(table)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(table.shape[1]), table.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # no warning at 10k
    index.train(table)
    index.add(table)
    index.nprobe = 4
    return _ranged(index, table, begun)


def _ranged(index, table, begun):
    limits, _, hits = index.range_search(table, THRESHOLD)
    rows = np.repeat(np.arange(len(table)), np.diff(limits.astype(np.int64)))
    above = rows < hits
    pairs = np.unique(rows[above] * len(table) + hits[above])
    return time.perf_counter() - begun, pairs


def run():
    import foundry.prune.neighbours as module

    rows, growth = [], {}
    sizes = [10_000, 100_000] + ([1_000_000] if os.environ.get("FOUNDRY_BENCH_MILLION") else [])
    exact, module.EXACT = module.EXACT, 9_999  # at 10k, too, measure the clusters
    try:
        for count in sizes:
            rows += _measured(count, growth)
    finally:
        module.EXACT = exact
    for low, high in pairwise(sizes):
        power = math.log(growth[high] / growth[low]) / math.log(high / low)
        rows.append({"what": f"growth exponent, {low:,} to {high:,}", "ours": power, "peer": 2.0, "unit": "power of N"})
    return {"name": "near-duplicate search (peer: faiss)", "rows": rows}


def _measured(count, growth):
    table = vectors(count)
    times = {ours: [], flat: [], inverted: []}
    pairs = {}
    mine, theirs = ROUNDS[count]
    for number in range(mine):
        for search, held in times.items():
            if search is ours or number < theirs:
                seconds, pairs[search] = search(table)
                held.append(seconds)
    growth[count] = median(times[ours])
    for search, name in ((flat, "flat range_search"), (inverted, "IVF, nprobe 4")):
        if times[search]:
            what = f"{count:,} vectors, beside faiss {name} ({len(times[search])} of its rounds)"
            yield {"what": what, "ours": growth[count], "peer": median(times[search]), "unit": "s"}
            share, other = (float(np.isin(pairs[flat], pairs[by]).mean()) for by in (ours, search))
            yield {"what": f"{count:,}: pairs found, beside {name}", "ours": share, "peer": other, "unit": "share"}
    if not theirs:
        yield {"what": f"{count:,} vectors (no peer)", "ours": growth[count], "peer": None, "unit": "s"}


if __name__ == "__main__":
    for row in run()["rows"]:
        print(row)
