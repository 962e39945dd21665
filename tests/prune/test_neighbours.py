"""The search for near rows, on vectors, beside a plain comparison of all pairs."""

import threading

import numpy as np
import pytest

from foundry.prune import neighbours
from foundry.prune.groups import Groups
from foundry.prune.neighbours import Points, Search


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def planted(count, size, seed=0):
    """Random unit vectors, every fifth a copy of another one at a cosine of 0.9 to 1."""
    draw = np.random.default_rng(seed)
    base = unit(draw.normal(size=(count, size)))
    copies = np.arange(0, count - 1, 5)
    cosine = draw.uniform(0.9, 1, (len(copies), 1))
    noise = unit(draw.normal(size=(len(copies), size)))
    base[copies] = unit(base[copies + 1] * cosine + noise * np.sqrt(1 - cosine**2))
    return unit(base)


def points(vectors, apart=None):
    count = len(vectors)
    return Points(vectors, np.arange(count)[:, None], np.zeros(count, np.int64) if apart is None else apart)


def found(search):
    return {(int(a), int(b)) for first, second, _ in search.pairs() for a, b in zip(first, second, strict=True)}


def expected(similarity, floor):
    first, second = np.nonzero(np.triu(similarity > floor, 1))
    return set(zip(first.tolist(), second.tolist(), strict=True))


@pytest.mark.parametrize("count", [2, 300, 2048, 2049, 5000])
def test_up_to_some_thousand_rows_every_pair_is_found(count):
    vectors = planted(count, 32)
    similarity = vectors @ vectors.T
    search = Search(points(vectors), 0.95)
    assert found(search) == expected(similarity, 0.95)
    np.fill_diagonal(similarity, -1)
    np.testing.assert_allclose(search.nearest, similarity.max(1), atol=1e-5)


def test_clusters_find_999_of_1000_pairs_and_the_same_ones_each_time(monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT", 100)
    vectors = planted(9_000, 48)
    pairs = expected(vectors @ vectors.T, 0.95)
    search = Search(points(vectors), 0.95)
    hits = found(search)
    assert len(pairs) > 800
    assert hits <= pairs
    assert len(hits) >= 0.999 * len(pairs)
    assert found(Search(points(vectors), 0.95)) == hits
    near = {row for pair in hits for row in pair}
    assert (search.nearest[list(near)] > 0.95).all()


@pytest.mark.parametrize("exact", [10, 10_000])
def test_rows_are_as_near_as_their_least_near_side_and_never_near_when_apart(monkeypatch, exact):
    monkeypatch.setattr(neighbours, "EXACT", exact)
    table, draw = planted(400, 16), np.random.default_rng(1)
    index = draw.integers(0, 12, (900, 2))
    apart = draw.integers(0, 2, 900)
    sides = [table[index[:, side]] @ table[index[:, side]].T for side in range(2)]
    similarity = np.where(apart[:, None] == apart[None], np.minimum(*sides), -1)
    pairs = expected(similarity, 0.9)
    assert len(pairs) > 500
    assert found(Search(Points(table, index, apart), 0.9)) == pairs


def test_a_pair_is_as_near_in_any_company():
    rows = points(planted(500, 64))
    first, second = np.arange(0, 499), np.arange(1, 500)
    together = rows.similarity(first, second)
    alone = [rows.similarity(first[i : i + 1], second[i : i + 1])[0] for i in range(499)]
    assert together.tolist() == alone


def test_threads_begun_later_have_as_many_threads_as_before():
    import torch

    seen = []
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        list(Search(points(planted(300, 16)), 0.95).pairs())
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
    finally:
        torch.set_num_threads(before)
    assert seen == [2]


def test_groups_are_connected_rows_however_the_pairs_arrive(monkeypatch):
    monkeypatch.setattr("foundry.prune.groups._PENDING", 3)
    groups = Groups(8)
    for first, second in [(5, 6), (1, 2), (6, 7), (2, 1), (7, 1)]:
        groups.join(np.array([first]), np.array([second]))
    assert groups.labels().tolist() == [0, 1, 1, 3, 4, 1, 1, 1]
    assert groups.merged() == 4
