"""Digests and the lot number."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry import lot
from foundry.errors import DataError

ROWS = st.lists(
    st.dictionaries(st.sampled_from(["text", "prompt", "n"]), st.one_of(st.integers(), st.text(alphabet="aé\n\"'"))),
    max_size=8,
)


@given(rows=ROWS, data=st.data())
def test_digest_of_rows_does_not_depend_on_their_order(rows, data):
    assert lot.digest_rows(data.draw(st.permutations(rows))) == lot.digest_rows(rows)


@given(rows=ROWS.filter(bool))
def test_digest_of_rows_counts_repeats(rows):
    assert lot.digest_rows([*rows, rows[0]]) != lot.digest_rows(rows)


def test_digest_of_rows_is_the_documented_one():
    rows = [{"b": 1, "a": "é"}, {"a": "x"}]
    digests = sorted(
        hashlib.sha256(json.dumps(r, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).digest()
        for r in rows
    )
    assert lot.digest_rows(rows) == hashlib.sha256(b"".join(digests)).hexdigest()


@given(st.dictionaries(st.text(alphabet="abc"), st.integers(), min_size=2))
def test_canonical_json_ignores_the_order_of_keys(value):
    assert lot.canonical(value) == lot.canonical(dict(reversed(value.items())))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_values_without_canonical_json_are_refused(value):
    with pytest.raises(DataError):
        lot.canonical({"a": value})


def test_folder_digests_equal_sha256_of_each_file(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_bytes(b"a" * 100_000)
    (tmp_path / "sub" / "b.txt").write_bytes(b"")
    expected = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.txt", "sub/b.txt")}
    assert lot.digest_folder(tmp_path) == expected


def test_a_link_in_a_folder_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="link"):
        lot.digest_folder(tmp_path)


def parts(**changed):
    given = {
        "dataset": {"train": "1"},
        "settings": {"a": 1},
        "base": {"name": "b", "files": {"x": "2"}},
        "files": {"model/w": "3"},
        "seed": 0,
        "hardware": {"device": "cpu"},
        "parents": (),
    }
    return lot.make(**{**given, **changed})["lot"]


@pytest.mark.parametrize(
    "changed",
    [
        {"dataset": {"train": "9"}},
        {"settings": {"a": 2}},
        {"base": {"name": "b", "files": {"x": "9"}}},
        {"files": {"model/w": "9"}},
        {"seed": 1},
        {"hardware": {"device": "cuda"}},
        {"parents": ("p",)},
    ],
)
def test_every_part_changes_the_lot_number(changed):
    assert parts(**changed) != parts()
    assert parts() == parts()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"contents": {}, "sealed": {}}', "[" * 100_000])
def test_a_broken_lot_file_is_a_data_error(tmp_path, text):
    (tmp_path / "lot.json").write_text(text)
    with pytest.raises(DataError, match=r"lot\.json"):
        lot.read(tmp_path)


def test_sealing_records_the_files_that_are_there(tmp_path):
    (tmp_path / "verdict.json").write_text("{}")
    (tmp_path / "lot.json").write_text(json.dumps({"lot": "x", "contents": {"files": {}}, "sealed": {}}))
    lot.seal(tmp_path, ["verdict.json", "report.html"])
    assert lot.read(tmp_path)["sealed"] == {"verdict.json": hashlib.sha256(b"{}").hexdigest()}
