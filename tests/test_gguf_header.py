"""The bounded reader of GGUF headers: agrees with gguf's own reader; mutations are read or refused, quickly."""

import random
import resource
import signal
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_model import SMOLLM2

from foundry import gguf_header
from foundry.errors import DataError
from foundry.model.pretrained import Pretrained, gguf_path

MUTATIONS = 10_000
IN_THE_ORDINARY_SUITE = 1_500


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A GGUF file with every kind of value, written by gguf's own writer."""
    import numpy as np
    from gguf import GGUFWriter

    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint8("a.u8", 7)
    writer.add_int64("a.i64", -5)
    writer.add_float32("a.f32", 0.5)
    writer.add_bool("a.bool", val=True)
    writer.add_string("a.text", "naïve 你好")
    writer.add_array("a.words", ["one", "", "three"])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_tensor("blk.0.attn_q.weight", np.ones((4, 64), dtype=np.float16))
    writer.add_tensor("output_norm.weight", np.ones(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("which", ["small", "real"])
def test_it_reads_what_gguf_reads(small, which):
    from gguf import GGUFReader

    path = small if which == "small" else gguf_path(SMOLLM2)
    found, reader = gguf_header.read(path), GGUFReader(path)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            value = found.metadata[key]
            assert (list(value) if isinstance(value, tuple) else value) == field.contents()
    assert {
        name: (tensor.shape, tensor.kind, found.data + tensor.offset, tensor.size)
        for name, tensor in found.tensors.items()
    } == {
        tensor.name: (tuple(map(int, tensor.shape)), int(tensor.tensor_type), int(tensor.data_offset), tensor.n_bytes)
        for tensor in reader.tensors
    }


def mutated(content, header, draw):
    """A header with one to four changes of the kinds that break readers: bits, lengths, cuts, repeats."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(min(header, len(changed)) or 1)
        kind = draw.randrange(5)
        if kind == 0 and changed:
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[at : at + 8] = struct.pack("<Q", draw.choice([0, 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1]))
        elif kind == 2:
            del changed[at : at + draw.randint(1, 64)]
        elif kind == 3:
            changed[at:at] = changed[at : at + draw.randint(1, 64)]
        else:
            del changed[draw.randrange(len(changed) + 1) :]
    return bytes(changed)


class LateError(BaseException):
    """Nothing that reads a file catches this."""


@contextmanager
def bounded(seconds=5.0, memory=2 * 2**30):
    """Inside, more memory than that ends in MemoryError, more time of the processor since `again` in LateError."""

    def late(*_):
        raise LateError

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGPROF, late)
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, before[1]))
    try:
        yield lambda: signal.setitimer(signal.ITIMER_PROF, seconds)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def survive(path, folder, count):
    """Read `count` mutations within the bounds; only DataError may come out. Returns what was refused."""
    content, header = path.read_bytes(), gguf_header.read(path).data
    place, refused = folder / "mutated.gguf", []
    with bounded() as again:
        for seed in range(count):
            place.write_bytes(mutated(content, header, random.Random(seed)))
            again()
            try:
                gguf_header.read(place)
            except DataError as error:
                refused.append(str(error))
    return refused


def test_the_bounds_of_these_tests_end_what_hangs_or_eats_memory():
    with pytest.raises(MemoryError), bounded():
        bytearray(3 * 2**30)

    def hang():
        while True:
            pass

    with bounded(0.1) as again:
        again()
        with pytest.raises(LateError):
            hang()


@pytest.mark.parametrize(
    "count",
    [IN_THE_ORDINARY_SUITE, pytest.param(MUTATIONS, marks=pytest.mark.slow)],
)
def test_mutated_headers_are_refused_or_read_but_never_hang_or_eat_memory(small, tmp_path, count):
    refused = survive(small, tmp_path, count)
    assert len(refused) > count / 2, "most mutations break something"
    assert all("mutated.gguf: " in line and len(line.splitlines()) == 1 for line in refused)


def test_the_most_items_that_are_allowed_are_read_in_time(tmp_path):
    place = tmp_path / "large.gguf"
    arrays = [struct.pack("<Q2sIIQ", 2, b"%02d" % i, 9, 8, 2**20) + bytes(8 * 2**20) for i in range(3)]
    place.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + b"".join(arrays))
    with bounded() as again:
        again()
        with pytest.raises(DataError, match="in all arrays"):
            gguf_header.read(place)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the magic"),
        (b"GGML" + bytes(40), "begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "at most"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63), "a key of"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99), "type 99"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "an array of type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 2**40), "items"),
        (b"GGUF" + struct.pack("<IQQQ17sII", 3, 0, 1, 17, b"general.alignment", 4, 7), "alignment of 7"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 64, 0, 0), "past the end"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 64, 99, 0), "type 99"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 33, 8, 0), "multiple of 32"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 5), "5 dimensions"),
    ],
)
def test_each_kind_of_nonsense_is_named(tmp_path, content, said):
    place = tmp_path / "bad.gguf"
    place.write_bytes(content)
    with pytest.raises(DataError, match=said):
        gguf_header.read(place)


def test_a_base_is_checked_before_a_library_opens_it(small, tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "base.gguf"
    place.write_bytes(small.read_bytes()[:-64])  # gguf's own reader raises from inside numpy
    with pytest.raises(DataError, match=r"base\.gguf.*past the end of the file"):
        Pretrained(name=str(place)).config()
