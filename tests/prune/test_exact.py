"""Pruning."""

from hypothesis import given
from hypothesis import strategies as st

from foundry.lot import digest_rows
from foundry.prune.exact import Exact
from foundry.prune.none import KeepAll
from foundry.records import Dataset

ROWS = st.lists(st.sampled_from([{"text": letter} for letter in "abcd"]), max_size=12)


def dataset(rows):
    return Dataset("d", "text", rows, [], digest_rows(rows), digest_rows([]))


@given(ROWS)
def test_one_of_each_row_stays_and_every_removed_row_names_an_equal_one(rows):
    pruned = Exact().prune(dataset(rows))
    assert sorted(row["text"] for row in pruned.rows) == sorted({row["text"] for row in rows})
    assert len(pruned.rows) + len(pruned.removed) == len(rows)
    for removed in pruned.removed:
        assert rows[removed.representative] == removed.row == rows[removed.index]
        assert removed.representative < removed.index
        assert removed.similarity == 1.0
    assert pruned.sha256 == digest_rows(pruned.rows)
    assert pruned.dataset_sha256 == digest_rows(rows)


@given(ROWS, st.data())
def test_the_rows_kept_do_not_depend_on_order_and_pruning_again_removes_nothing(rows, data):
    shuffled = data.draw(st.permutations(rows))
    pruned = Exact().prune(dataset(rows))
    assert Exact().prune(dataset(shuffled)).sha256 == pruned.sha256
    assert not Exact().prune(dataset(pruned.rows)).removed


@given(ROWS)
def test_none_keeps_everything(rows):
    pruned = KeepAll().prune(dataset(rows))
    assert list(pruned.rows) == rows
    assert not pruned.removed
