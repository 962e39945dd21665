"""Blocks of bytes → numbered lines."""

from collections.abc import Iterable, Iterator
from itertools import chain

from foundry.data.faults import RecordError

MARK = b"\xef\xbb\xbf"
"""The byte order mark that some programs put in front of UTF-8."""

LINE = 2**26
"""Bytes that a line may have: a longer one is passed over without being held in memory."""


def lines(blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes | RecordError]]:
    """Split into lines, numbered from 1, without their ends and without the byte order mark of UTF-8."""
    number, rest, skipped = 0, b"", 0
    for block in chain(blocks, [None]):
        *whole, last = ([b"", b""] if rest or skipped else [b""]) if block is None else block.split(b"\n")
        for line in whole:
            number += 1
            if skipped:
                yield number, RecordError(f"the line has {skipped + len(line):,} bytes, more than {LINE:,}")
            else:
                line = rest + line if rest else line  # noqa: PLW2901
                yield number, line.removeprefix(MARK) if number == 1 else line
            rest, skipped = b"", 0
        if skipped or len(rest) + len(last) > LINE:
            rest, skipped = b"", skipped + len(rest) + len(last)
        else:
            rest += last
