"""Files: every kind reads the same, and what cannot be read is quarantined with its line."""

import csv
import gzip
import io
import json
import re

import pytest
import zstandard

from foundry.data.files import Files
from foundry.errors import DataError

ROWS = [{"question": f"What is {i}?\n\nBriefly.", "answer": f"Ünit {i}"} for i in range(5)]


def as_jsonl(rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_csv(rows, delimiter=","):
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue().encode()


def as_parquet(rows):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    sink = io.BytesIO()
    write_table(pa.Table.from_pylist(rows), sink, row_group_size=2)
    return sink.getvalue()


def load(path, content=None, **settings):
    if content is not None:
        path.write_bytes(content)
    return Files(path=str(path), **{"eval_fraction": 0.0, **settings}).load()


KINDS = {
    "a.jsonl": as_jsonl(ROWS),
    "bom.jsonl": b"\xef\xbb\xbf" + as_jsonl(ROWS),
    "crlf.jsonl": as_jsonl(ROWS).replace(b"\n", b"\r\n").rstrip(),
    "lines.json": b"\n" + as_jsonl(ROWS),
    "array.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "wrapped.json": json.dumps({"version": 1, "data": ROWS}).encode(),
    "one_by_one.json": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "a.csv": as_csv(ROWS),
    "a.tsv": as_csv(ROWS, "\t"),
    "a.parquet": as_parquet(ROWS),
    "no_ending": as_jsonl(ROWS),
    "a.jsonl.gz": gzip.compress(as_jsonl(ROWS)),
    "two_members.jsonl.gz": gzip.compress(as_jsonl(ROWS[:2])) + gzip.compress(as_jsonl(ROWS[2:])),
    "a.csv.gz": gzip.compress(as_csv(ROWS)),
    "a.jsonl.zst": zstandard.compress(as_jsonl(ROWS)),
    "two_frames.json.zst": zstandard.compress(as_jsonl(ROWS[:2])) + zstandard.compress(as_jsonl(ROWS[2:])),
    "gz_by_content.jsonl": gzip.compress(as_jsonl(ROWS)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name):
    expected = load(tmp_path / "expected.jsonl", as_jsonl(ROWS))
    dataset = load(tmp_path / name, KINDS[name])
    assert list(dataset.train) == list(expected.train)
    assert dataset.sha256 == expected.sha256
    assert dataset.notes == (f"{name}: 5 question_answer",)
    assert not dataset.quarantined


def test_a_json_file_with_one_record_that_holds_a_list_is_that_record(tmp_path):
    record = {"prompt": [{"role": "user", "content": "q"}], "completion": "a"}
    dataset = load(tmp_path / "a.json", json.dumps(record, indent=1).encode())
    assert list(dataset.train) == [{**record, "completion": [{"role": "assistant", "content": "a"}]}]


def test_a_folder_or_glob_is_the_sum_of_its_files(tmp_path, monkeypatch):
    whole = load(tmp_path / "whole.jsonl", as_jsonl(ROWS))
    folder = tmp_path / "rows"
    (folder / "deep").mkdir(parents=True)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.jsonl").write_bytes(as_jsonl([{"text": "hidden"}]))
    (folder / "README.md").write_text("not rows")
    (folder / "a.jsonl").write_bytes(as_jsonl(ROWS[:2]))
    (folder / "deep" / "b.csv").write_bytes(as_csv(ROWS[2:]))
    monkeypatch.chdir(tmp_path)
    for path in ("rows", "rows/**/*.[cj]s*", str(folder)):
        dataset = load(path)
        assert (dataset.name, dataset.sha256) == ("rows", whole.sha256)
        assert dataset.notes == ("a.jsonl: 2 question_answer", "b.csv: 3 question_answer")


GOOD = as_jsonl([{"prompt": f"q{i}", "completion": "a"} for i in range(3)])
LINES = [
    (b"{broken\n", "not JSON"),
    (b'{"prompt": "\xff", "completion": "a"}\n', r"not UTF-8 \(byte 13\)"),
    (b"[1, 2]\n", "expected an object, found a list"),
    (b"null\n", "expected an object, found nothing"),
    (b"[" * 10_000 + b"\n", "nested too deep"),
    (b'{"messages": ' + b"[" * 900 + b"]" * 900 + b"}\n", "role and content"),
    (b'{"prompt": NaN, "completion": "a"}\n', "not JSON"),
    (b'{"prompt": "a\\u0000b", "completion": "c"}\n', "NUL"),
    (b'{"prompt": "\\ud800", "completion": "c"}\n', "lone surrogate"),
    (json.dumps({"prompt": "a", "completion": "x" * 10_000_000}).encode() + b"\n", "10,000,000 characters"),
    (b'{"text": "a"}\n', "a text row among instruction rows"),
]


@pytest.mark.parametrize(("line", "reason"), LINES, ids=[reason for _, reason in LINES])
def test_a_bad_line_is_quarantined_with_its_number_and_reason(tmp_path, line, reason):
    first, *others = GOOD.splitlines(keepends=True)
    path = tmp_path / "a.jsonl"
    dataset = load(path, first + b"\n" + line + b"".join(others), max_bad_fraction=0.5)
    assert len(dataset.train) == 3
    (bad,) = dataset.quarantined
    assert (bad.source, bad.line) == (str(path), 3)
    assert re.search(reason, bad.reason)
    assert dataset.notes == ("a.jsonl: 3 prompt_completion, 1 bad",)


def test_what_looks_like_a_nul_or_a_long_field_but_is_none_is_kept(tmp_path):
    said = "the text \\u0000 " + "\n" * 600  # twice as long as JSON
    dataset = load(tmp_path / "a.jsonl", as_jsonl([{"question": "q", "answer": said}]), max_field_chars=700)
    assert dataset.train[0]["completion"][0]["content"] == said


def test_a_line_that_is_too_long_to_hold_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr("foundry.data.lines.LINE", 1000)
    monkeypatch.setattr("foundry.data.reading.BLOCK", 64)
    first, *others = GOOD.splitlines(keepends=True)
    content = first + b'{"text": "' + b"x" * 5000 + b'"}\n' + b"".join(others)
    dataset = load(tmp_path / "a.jsonl", content, max_bad_fraction=0.5)
    assert len(dataset.train) == 3
    assert [(bad.line, bad.reason) for bad in dataset.quarantined] == [(2, "the line has 5,012 bytes, more than 1,000")]


def test_bad_csv_records_are_quarantined_and_the_next_one_is_read(tmp_path):
    content = b'prompt,completion\nq1,a\nq2\n"q3"x,a\n"q4\n\nq4",a\nq5,\xff\n\nq6,\nq7,a\x00\nq8,"a""b"\n"q9,a\nq10,a\n'
    dataset = load(tmp_path / "a.csv", content, max_bad_fraction=0.9)
    kept = {row["prompt"][0]["content"]: row["completion"][0]["content"] for row in dataset.train}
    assert kept == {"q1": "a", "q4\n\nq4": "a", "q8": 'a"b'}
    reasons = [(bad.line, bad.reason.partition(":")[0]) for bad in dataset.quarantined]
    assert reasons[:3] == [
        (3, "expected 2 fields as in the header, found 1"),
        (4, "not CSV"),
        (8, "has a lone surrogate or bytes that are not UTF-8"),
    ]
    assert reasons[3:] == [(10, "completion"), (11, "has a NUL character"), (13, "not CSV"), (14, "not CSV")]


def test_a_bad_parquet_row_is_quarantined_by_its_number(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}] * 3
    rows[1] = {"messages": [{"role": "user", "content": "q"}]}
    dataset = load(tmp_path / "a.parquet", as_parquet(rows), max_bad_fraction=0.5)
    assert len(dataset.train) == 2
    assert [(bad.line, bad.reason) for bad in dataset.quarantined] == [(2, "messages: has no assistant turn")]


MANY = as_jsonl(
    [{"question": f"q{i} " + "".join(chr(97 + (i * j) % 26) for j in range(50)), "answer": "a"} for i in range(2000)]
)
BREAKS = {
    "cut.jsonl.gz": gzip.compress(MANY)[:-2000],
    "cut.jsonl.zst": zstandard.compress(MANY)[:-2000],
    "damaged.jsonl.gz": gzip.compress(MANY)[:3000] + b"\xff" * 100 + gzip.compress(MANY)[3100:],
    "cut.parquet": as_parquet(ROWS)[:-4],
    "no.parquet": b"no rows",
    "open.json": json.dumps(ROWS).encode()[:-1],
    "cut.json": json.dumps(ROWS).encode()[:-20],
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_file_that_breaks_off_stops_the_job_unless_it_is_one_of_many(tmp_path, name):
    with pytest.raises(DataError, match=rf"1 of 1 files break off.*{name}:\d+: |no usable row.*{name}:1: "):
        load(tmp_path / name, BREAKS[name])
    for i in range(3):
        (tmp_path / f"whole{i}.jsonl").write_bytes(as_jsonl(ROWS))
    dataset = load(tmp_path, max_bad_fraction=0.25)
    assert len(dataset.train) >= 15
    (broken,) = dataset.quarantined
    assert broken.source.endswith(name)
    with pytest.raises(DataError, match="1 of 4 files break off"):
        load(tmp_path, max_bad_fraction=0.2)


def test_of_a_file_that_breaks_off_the_rows_before_are_kept(tmp_path):
    dataset = load(tmp_path / "cut.jsonl.gz", BREAKS["cut.jsonl.gz"], max_bad_fraction=1.0)
    assert 100 < len(dataset.train) < 2000
    assert dataset.quarantined[0].line == len(dataset.train) + 1


def test_the_share_of_bad_records_decides(tmp_path):
    content = as_jsonl([{"text": f"t{i}"} for i in range(99)]) + b"{\n"
    assert len(load(tmp_path / "a.jsonl", content, max_bad_fraction=0.01).train) == 99
    with pytest.raises(DataError, match=r"1 of 100 records are bad.*max_bad_fraction=0.005.*a\.jsonl:100: not JSON"):
        load(tmp_path / "a.jsonl", max_bad_fraction=0.005)


def test_unwanted_answers_of_kto_are_quarantined_but_not_bad(tmp_path):
    rows = [{"prompt": f"q{i}", "completion": "a", "label": i % 2 == 0} for i in range(10)]
    dataset = load(tmp_path / "a.jsonl", as_jsonl(rows), max_bad_fraction=0.0)
    assert (len(dataset.train), [bad.line for bad in dataset.quarantined]) == (5, [2, 4, 6, 8, 10])
    assert dataset.notes == ("a.jsonl: 5 kto, 5 set aside",)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"{}\n", b'{"prompt": "a", "completion": "b", "label": false}'])
def test_a_file_without_a_row_is_a_data_error(tmp_path, content):
    with pytest.raises(DataError, match="no usable row"):
        load(tmp_path / "a.jsonl", content)


def test_utf_16_is_named(tmp_path):
    with pytest.raises(DataError, match="UTF-16; convert the file"):
        load(tmp_path / "a.jsonl", as_jsonl(ROWS).decode().encode("utf-16"))


def test_a_source_of_nothing_but_bad_records_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("foundry.data.harvest.GIVE_UP", 100)
    with pytest.raises(DataError, match="among 100 records"):
        load(tmp_path / "a.jsonl", b"{\n" * 1000, max_bad_fraction=1.0)


def texts(rows):
    return {row["text"] for row in rows}


def test_held_out_rows_and_limit_are_drawn_from_content_and_seed(tmp_path):
    rows = [{"text": f"t{i}"} for i in range(1000)]
    path = tmp_path / "a.jsonl"
    dataset = load(path, as_jsonl(rows), eval_fraction=0.25)
    assert 200 < len(dataset.eval) < 300
    assert texts(dataset.eval) | texts(dataset.train) == {row["text"] for row in rows}
    fewer = load(path, as_jsonl(rows[:500]), eval_fraction=0.25)
    assert texts(fewer.eval) == texts(dataset.eval) & {row["text"] for row in rows[:500]}
    limited = load(path, as_jsonl(rows[::-1]), eval_fraction=0.25, limit=10)
    assert list(limited.train) == list(dataset.train[:10])
    assert limited.eval_sha256 == dataset.eval_sha256
    assert load(path, eval_fraction=0.25, seed=2).eval_sha256 != dataset.eval_sha256


def test_when_every_row_is_held_out_it_says_so(tmp_path):
    with pytest.raises(DataError, match="every row is held out"):
        load(tmp_path / "a.jsonl", as_jsonl(ROWS[:1]), eval_fraction=0.999999)


def test_many_files_are_summed_up_in_the_notes(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.jsonl").write_bytes(as_jsonl([{"text": f"t{i}"}]))
    assert load(tmp_path).notes[-1] == "3 more files: 3 text"
