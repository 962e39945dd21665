"""Words and hashed word n-grams of many texts at once, by numpy over bytes instead of Python over words.

A word is a run of letters, marks and digits after Unicode NFKC and case folding. Apostrophes and invisible
format characters vanish (`don't` is `dont`), everything else separates words; in scripts written without
spaces every character is a word.

Hashes are polynomials modulo 2^64 over prefix sums (Karp and Rabin 1987), so that any range of words is
hashed by one subtraction. They only propose: whoever uses one compares the words.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundry.records import Row

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15
_SPREAD = np.uint64(0xD6E8FEB86659FD93)
_SLICE = 8192
"""Words hashed at a time, so that the prefix sums over their bytes stay in the second-level cache."""

_UNSPACED = (
    (0x0E00, 0x0F00),  # Thai, Lao
    (0x1000, 0x10A0),  # Myanmar
    (0x1780, 0x1800),  # Khmer
    (0x3040, 0x3100),  # Hiragana, Katakana
    (0x31F0, 0x3200),
    (0x3400, 0x4DC0),  # CJK ideographs, and the two ranges below
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x20000, 0x40000),
)
_ASCII = bytes(ord(chr(i).lower()) if chr(i).isascii() and chr(i).isalnum() else 32 * (i > 0) for i in range(256))


def passages(row: Row) -> list[str]:
    """The texts of a row in reading order: its prompt or its text first, then each answer; no system messages."""
    if "text" in row:
        return [row["text"]]
    return [_said(row[key]) for key in ("prompt", "completion", "chosen", "rejected") if key in row]


def _said(part: Any) -> str:
    if isinstance(part, str):
        return part
    return "\n".join([message["content"] or "" for message in part if message["role"] != "system"])


@dataclass(frozen=True, eq=False)
class Words:
    """The words of P texts, W in all.

    Attributes:
        text: Normalised UTF-8: words apart by spaces, texts apart by NUL.
        starts: (W,) where each word starts in `text`.
        ends: (W,) where it ends.
        first: (P + 1,) index of each text's first word; the last is W.
        sums: (W + 1,) prefix sums of the words' hashes, for `hashes`.
    """

    text: bytes
    starts: Numbers
    ends: Numbers
    first: Numbers
    sums: Hashes

    def hashes(self, begin: Numbers, end: Numbers) -> Hashes:
        """Hash the words from `begin` up to `end`, both (K,), whatever surrounds them; returns (K,)."""
        return mix((self.sums[end] - self.sums[begin]) * _powers(len(self.sums))[1][begin])

    def grams(self, n: int) -> Hashes:
        """Hash every n words in a row, across texts too; returns (max(W - n + 1, 0),)."""
        count = max(len(self.starts) - n + 1, 0)
        return mix((self.sums[n : n + count] - self.sums[:count]) * _powers(len(self.sums))[1][:count])

    def between(self, begin: int, end: int) -> list[bytes]:
        """The words from `begin` up to `end`."""
        if begin >= end:
            return []
        return self.text[self.starts[begin] : self.ends[end - 1]].replace(b"\0", b" ").split()


def split(texts: Sequence[str]) -> Words:
    """Normalise the texts and find and hash their words."""
    text = b" " + _normalised(texts) + b" "
    codes = np.frombuffer(text, np.uint8)
    inside = codes > ord(" ")
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    breaks = np.searchsorted(starts, np.flatnonzero(codes == 0))
    first = np.concatenate([[0], breaks, [len(starts)]]) if texts else np.zeros(1, np.int64)
    sums = np.zeros(len(starts) + 1, np.uint64)
    for begin in range(0, len(starts), _SLICE):
        chosen = slice(begin, begin + _SLICE)
        sums[1:][chosen] = _word_hashes(codes, starts[chosen], ends[chosen])
    sums[1:] *= _powers(len(sums))[0][: len(starts)]
    np.cumsum(sums, out=sums)
    return Words(text, starts, ends, first, sums)


def _word_hashes(codes: NDArray[np.uint8], starts: Numbers, ends: Numbers) -> Hashes:
    low = starts[0] - 1
    width = int(ends[-1] - low)
    up, down = _powers(width)
    sums = np.multiply(up[:width], codes[low : low + width])
    np.cumsum(sums, out=sums)
    return mix((sums[ends - 1 - low] - sums[starts - 1 - low]) * down[starts - low])


def mix(values: Hashes) -> Hashes:
    """Spread each hash over all 64 bits, in place: the low bits of a polynomial alone are poor."""
    values ^= values >> np.uint64(32)
    values *= _SPREAD
    values ^= values >> np.uint64(29)
    return values


def _powers(count: int) -> tuple[Hashes, Hashes]:
    """At least `count` powers of the base, and of its inverse modulo 2^64."""
    return _power_table(max(count, 2**16).bit_length())


@cache
def _power_table(bits: int) -> tuple[Hashes, Hashes]:
    up, down = (np.full(1 << bits, base, np.uint64) for base in (_BASE, pow(_BASE, -1, 2**64)))
    up[0] = down[0] = 1
    return np.cumprod(up, out=up), np.cumprod(down, out=down)


def _normalised(texts: Sequence[str]) -> bytes:
    joined = "\0".join(texts)
    if joined.count("\0") >= max(len(texts), 1):  # some text has a NUL of its own
        joined = "\0".join([text.replace("\0", " ") for text in texts])
    if joined.isascii():
        return joined.encode().translate(_ASCII, b"'")
    return _unicode(joined)


def _unicode(text: str) -> bytes:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    codes = _simplified()[np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), "<u4")]
    if codes.max(initial=0) >= _UNSPACED[0][0]:
        codes = _apart(codes)
    utf8: bytes = codes.tobytes().decode("utf-32-le").encode()
    return utf8.translate(None, b"'")


def _apart(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Put a space on either side of each character that is a word of its own."""
    alone = np.zeros(len(codes), bool)
    for begin, end in _UNSPACED:
        alone |= (codes >= begin) & (codes < end)
    width = 1 + 2 * alone
    spaced = np.full(int(width.sum()), ord(" "), "<u4")
    spaced[np.cumsum(width) - 1 - alone] = codes
    return spaced


@cache
def _simplified() -> NDArray[np.uint32]:
    """Each code point's stand-in, (0x110000,): itself within a word, an apostrophe if it is to vanish, or a space."""
    codes = np.full(0x110000, ord(" "), "<u4")
    for code, kind in enumerate(map(unicodedata.category, map(chr, range(0x110000)))):
        if kind[0] in "LMN":
            codes[code] = code
        elif kind == "Cf":
            codes[code] = ord("'")
    codes[[ord("'"), 0x2018, 0x2019, 0x02BC]] = ord("'")
    codes[0] = 0  # parts the texts
    return codes


def word_ids(words: Words) -> Numbers:
    """The same number for the same word, (W,)."""
    known: dict[bytes, int] = {}
    every = words.between(0, len(words.starts))
    return np.array([known.setdefault(word, len(known)) for word in every], np.int64)


def gram_ids(ids: Numbers, n: int) -> Numbers:
    """The same number for the same n words in a row, (W - n + 1,): two shorter ones that overlap name the whole."""
    length = 1
    while length < n <= len(ids) + length - 1:
        step = min(length, n - length)
        ids = np.unique(ids[:-step] * (int(ids.max()) + 1) + ids[step:], return_inverse=True)[1]
        length += step
    return ids


def begins(first: Numbers, n: int) -> Numbers:
    """The words at which n words of one row begin, given every row's first word and the end."""
    spans = [np.arange(begin, end - n + 1) for begin, end in pairwise(first.tolist())]
    return np.concatenate([np.zeros(0, np.int64), *spans]).astype(np.int64)


def rows_having(grams: Numbers, row: Numbers) -> Numbers:
    """How many distinct rows have each n-gram, (K,), given the number and the row of each."""
    if not len(grams):
        return grams
    rows = int(row.max()) + 1
    kinds = np.unique(grams, return_inverse=True)[1]
    return np.bincount(np.unique(kinds * rows + row) // rows)[kinds]
