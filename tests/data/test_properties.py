"""What must hold for any rows: nothing depends on how they are split, ordered or packed, and no line gets lost."""

import gzip
import json
import tempfile
from pathlib import Path

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry.data.files import Files
from foundry.errors import DataError

SAID = st.text(min_size=1, max_size=20)
RECORDS = st.one_of(
    st.fixed_dictionaries({"question": SAID, "answer": SAID}),
    st.fixed_dictionaries({"prompt": SAID, "completion": SAID, "label": st.booleans()}),
    st.fixed_dictionaries({"prompt": SAID, "chosen": SAID, "rejected": SAID}),
    st.fixed_dictionaries({"text": SAID}),
    st.fixed_dictionaries({"other": SAID}),
)
PACK = {"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}


def outcome(files):
    """All that a job sees of these files, whatever they are called and wherever a row stands in them."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            dataset = Files(path=folder, eval_fraction=0.3, max_bad_fraction=1.0).load()
        except DataError as error:
            return next(why for why in ("no usable row", "every row is held out") if why in str(error))
    reasons = sorted(bad.reason for bad in dataset.quarantined)
    return dataset.shape, dataset.sha256, dataset.eval_sha256, list(dataset.train), list(dataset.eval), reasons


def written(records, kind="jsonl"):
    return PACK[kind](b"".join(json.dumps(record).encode() + b"\n" for record in records))


@given(st.lists(RECORDS, min_size=1, max_size=30), st.data())
@settings(max_examples=60, deadline=None)
def test_order_splitting_and_compression_change_nothing(records, data):
    mixed = data.draw(st.permutations(records))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(mixed)), max_size=3))), len(mixed)]
    kinds = [data.draw(st.sampled_from(sorted(PACK))) for _ in cuts[1:]]
    files = {f"{i}.{kind}": written(mixed[cuts[i] : cuts[i + 1]], kind) for i, kind in enumerate(kinds)}
    assert outcome(files) == outcome({"all.jsonl": written(records)})


@st.composite
def mangled(draw):
    """Lines of random bytes, and good lines with bytes changed, cut out or put in."""
    lines = []
    for record in draw(st.lists(RECORDS, max_size=12)):
        line = bytearray(json.dumps(record).encode())
        for _ in range(draw(st.integers(0, 3))):
            begin = draw(st.integers(0, len(line)))
            end = draw(st.integers(begin, min(begin + 3, len(line))))
            line[begin:end] = draw(
                st.binary(max_size=3) | st.sampled_from([b"\n", b'"', b"\\ud800", b"\\u0000", b"NaN", b"[" * 2000])
            )
        lines.append(bytes(line))
    lines += draw(st.lists(st.binary(max_size=40), max_size=4))
    return b"\n".join(draw(st.permutations(lines)))  # fmt: skip


@given(mangled(), st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet", "bin", "jsonl.gz"]))
@settings(max_examples=250, deadline=None)
def test_no_bytes_raise_anything_but_a_data_error_and_no_line_is_lost(content, ending):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{ending}"
        path.write_bytes(b'{"text": "good"}\n' + content)
        try:
            dataset = Files(path=str(path), format="text", eval_fraction=0.0, max_bad_fraction=1.0).load()
        except DataError:
            assert ending != "jsonl"
            return
    if ending == "jsonl":
        numbers = [number for number, line in enumerate(path_lines(content), 1) if line.strip()]
        assert len(dataset.train) + len(dataset.quarantined) == len(numbers)
        assert {bad.line for bad in dataset.quarantined} <= set(numbers)


def path_lines(content):
    return (b'{"text": "good"}\n' + content).split(b"\n")
