"""Rows kept as canonical JSON."""

import json
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from foundry import lot
from foundry.errors import DataError
from foundry.rows import Rows, encode

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
TEXTS = st.dictionaries(st.text(), st.text() | st.lists(st.dictionaries(st.text(), st.text(), max_size=3), max_size=3))


@given(TEXTS | st.builds(lambda value: {"tools": [value]}, JSON))
@example({"tools": [1e16, 1e-7, -0.0, 2**63]})
@example({"text": '\x00\x1f\x7f\u2028\\"\ud7ff\U0010ffff'})
@example({"\ue000": "after", "\U00010000": "before in UTF-16 only"})
def test_the_fast_encoder_writes_what_the_lot_writes(row):
    try:
        expected = lot.canonical(row)
    except DataError:
        with pytest.raises(DataError):
            encode(row)
    else:
        assert encode(row) == expected


@given(st.lists(TEXTS, max_size=20))
def test_rows_are_a_sequence_of_what_went_in(rows):
    kept = Rows.of(rows[:7], Rows.of(rows[7:]))
    assert list(kept) == rows
    assert [kept[i] for i in range(-len(kept), len(kept))] == rows + rows
    assert list(kept[1::2]) == rows[1::2]
    assert list(kept[::-1][:3]) == rows[::-1][:3]
    assert list(pickle.loads(pickle.dumps(kept[2:]))) == rows[2:]  # noqa: S301
    with pytest.raises(IndexError):
        kept[len(rows)]


@given(st.lists(TEXTS, max_size=20), st.data())
def test_the_digest_is_the_lots_and_the_drawn_order_is_the_rows_own(rows, data):
    kept = Rows.of(rows)
    shuffled = Rows.of(data.draw(st.permutations(rows)))
    assert kept.sha256() == shuffled.sha256() == lot.digest_rows(rows)
    for seed in (0, 1, 2**64 + 5):
        drawn, lots = kept.drawn(seed)
        again, others = shuffled.drawn(seed)
        assert (list(drawn), lots.tolist()) == (list(again), others.tolist())
        assert all(0 <= one <= 1 for one in lots)


def test_seeds_draw_evenly_and_independently():
    rows = Rows.of({"text": str(i)} for i in range(4000))
    first, lots = rows.drawn(1)
    held = {row["text"] for row in first[: int((lots < 0.3).sum())]}
    assert 1100 < len(held) < 1300
    second, others = rows.drawn(2)
    both = held & {row["text"] for row in second[: int((others < 0.3).sum())]}
    assert 290 < len(both) < 430


@pytest.mark.parametrize("value", ["\ud800", float("nan"), {1, 2}, 2**70])
def test_what_has_no_json_is_a_data_error(value):
    with pytest.raises(DataError):
        encode({"tools": [value]})


def test_text_takes_about_its_own_size():
    rows = Rows.of({"text": f"{i:0100}"} for i in range(1000))
    assert len(pickle.dumps(rows)) < 1.6 * sum(len(json.dumps(row)) for row in rows)
