"""CSV and Parquet → records."""

import csv
from collections.abc import Iterable, Iterator
from typing import IO

from foundry.data.faults import BrokenError, Entry, RecordError
from foundry.data.lines import lines


def csv_rows(blocks: Iterable[bytes], delimiter: str) -> Iterator[Entry]:
    """CSV with a header line; a record is numbered by the line that it begins on."""
    csv.field_size_limit(2**31 - 1)
    at, passed = 0, list[Entry]()

    def decoded() -> Iterator[str]:
        nonlocal at
        for at, line in lines(blocks):
            if isinstance(line, RecordError):
                passed.append((at, line))
            else:
                yield line.decode("utf-8", errors="surrogateescape") + "\n"

    reader = csv.reader(decoded(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        begin = at + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            # A stray quote swallows lines: each of them is lost, so each of them counts.
            yield from (
                (number, RecordError(f"not CSV: {error} (lines {begin} to {at})")) for number in range(begin, at + 1)
            )
            continue
        if header is None or not cells:
            header = cells or header
        elif len(cells) != len(header):
            yield begin, RecordError(f"expected {len(header)} fields as in the header, found {len(cells)}")
        else:
            yield begin, dict(zip(header, cells, strict=True))
    yield from passed


def parquet_rows(file: IO[bytes]) -> Iterator[Entry]:
    """Read a Parquet file that can be searched in; rows are numbered from 1.

    Raises:
        BrokenError: It is none, or not whole.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        batches = ParquetFile(file).iter_batches(batch_size=1024)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except (pa.ArrowException, OSError) as error:
        raise BrokenError(f"not a whole Parquet file: {str(error).splitlines()[0]:.120}") from None
