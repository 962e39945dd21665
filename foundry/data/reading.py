"""Bytes → records. What a file is shows in its first bytes; its name matters for CSV alone."""

import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any

from foundry.data.faults import BrokenError, Entry
from foundry.data.json_text import json_lines, json_values
from foundry.data.tables import csv_rows, parquet_rows
from foundry.errors import DataError, FoundryError

BLOCK = 2**20
ENDINGS = re.compile(r"\.(jsonl|ndjson|json|csv|tsv|parquet)(\.(gz|zst))?$", re.IGNORECASE)


def records(file: IO[bytes], name: str) -> Iterator[Entry]:
    """Read the records of an open file, compressed or not: JSON Lines, JSON, CSV, TSV or Parquet.

    Args:
        file: Open for reading bytes.
        name: What a person calls it; the ending tells CSV and TSV from JSON.

    Raises:
        BrokenError: It breaks off, or is no Parquet file inside.
        DataError: Reading failed.
    """
    blocks = _blocks(file, name)
    head = next(blocks, b"")
    whole = chain([head], blocks)
    ending = ENDINGS.search(name)
    kind = ending[1].lower() if ending else ""
    if kind == "parquet" or head.startswith(b"PAR1"):
        return parquet_rows(file if file.seekable() else io.BytesIO(b"".join(whole)))
    if head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        whole = chain(_unpacked(whole, _zlib if head[0] == 0x1F else _zstd))
    if kind in {"csv", "tsv"}:
        return csv_rows(whole, "\t" if kind == "tsv" else ",")
    return json_lines(whole) if kind in {"jsonl", "ndjson"} else json_values(whole)


@contextmanager
def reachable(name: str) -> Iterator[None]:
    """Say in one line why a place cannot be read, whatever its file system raises."""
    try:
        yield
    except FoundryError:
        raise
    except FileNotFoundError:
        raise DataError(f"data.path: {name}: no such file") from None
    except Exception as error:  # noqa: BLE001  # botocore, aiohttp and others have exceptions of their own
        said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"data.path: {name}: cannot be read: {said:.200}") from None


def _blocks(file: IO[bytes], name: str) -> Iterator[bytes]:
    while True:
        with reachable(name):
            block = file.read(BLOCK)
        if not block:
            return
        yield block


def _zlib() -> Any:
    return zlib.decompressobj(wbits=31)


def _zstd() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def _unpacked(blocks: Iterable[bytes], fresh: Callable[[], Any]) -> Iterator[bytes]:
    """Decompress one stream after the other, as `cat a.gz b.gz` leaves them."""
    import zstandard

    stream = None
    try:
        for block in blocks:
            rest = block
            while rest:
                stream = stream or fresh()
                yield stream.decompress(rest)
                rest = stream.unused_data
                stream = None if stream.eof else stream
    except (zlib.error, zstandard.ZstdError) as error:
        raise BrokenError(f"the compressed data is damaged ({error})") from None
    if stream is not None:
        raise BrokenError("the compressed data breaks off")
