"""Decontamination: training rows that share their words with rows that the student is examined on.

A training row overlaps an evaluation row if, both normalised (see `ngrams`),

- they share word n-grams that cover more than half of the own words of the evaluation prompt or text
  (Lambert et al. 2024, arXiv:2411.15124, with n = 8), or
- they share an n-gram that has at least eight own words and that at most ten evaluation rows have
  (Brown et al. 2020, arXiv:2005.14165, appendix C, with n = 13), or
- the evaluation prompt or text has fewer than n words, or none of its own, and it (unless it is a template), or the
  whole row, equals the training prompt or the whole training row.

A word is a row's own unless it stands in a trigram which three rows, and more than a tenth, of its evaluation set
have: that is a template. Every hash hit is confirmed on the words.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foundry.examine.ngrams import (
    Hashes,
    Numbers,
    Words,
    begins,
    gram_ids,
    passages,
    rows_having,
    split,
    word_ids,
)
from foundry.records import Finding, Row

TRIGRAM = 3
TEMPLATE_ROWS = 3
TEMPLATE_SHARE = 0.1
OWN_WORDS = 8
COMMON_ROWS = 10
EXCERPT = 50
"""Words of an overlap that a finding shows."""

_BLOCK = 2**19
"""Characters of training text looked at together."""

_PAIRS = 2**21
"""Pairs of places with equal hashes held at a time."""


@dataclass(frozen=True)
class Reference:
    """A set of evaluation rows and what it is called."""

    name: str
    rows: Sequence[Row]


def find(train: Iterable[Row], references: Sequence[Reference], n: Literal[8, 13] = 13) -> list[Finding]:
    """Find every training row that overlaps an evaluation row.

    The training rows are gone through once; memory is bounded by the evaluation rows and the longest training row.

    Args:
        train: Rows of any shape.
        references: The evaluation sets.
        n: Words in an n-gram.

    Returns:
        At most one finding a training row, by its index. Of several evaluation rows it names the one covered
        most, then the one with the most n-grams, then the first.
    """
    index = _Index(references, n)
    found = (finding for block in _blocks(train) for finding in index.look_up(block))
    return sorted(found, key=lambda finding: finding.train)


@dataclass(frozen=True, eq=False)
class _Block:
    """R rows split into words: their numbers, each row's first word (R + 1,), the end of its prompt (R,)."""

    rows: Sequence[int]
    words: Words
    first: Numbers
    asked: Numbers


def _blocks(rows: Iterable[Row]) -> Iterator[_Block]:
    """Rows in blocks, those in plain ASCII apart from the others, which take longer to normalise."""
    waiting: dict[bool, list[tuple[int, list[str]]]] = {True: [], False: []}
    sizes = {True: 0, False: 0}
    for number, row in enumerate(rows):
        texts = passages(row)
        plain = all(map(str.isascii, texts))
        waiting[plain].append((number, texts))
        sizes[plain] += sum(map(len, texts))
        if sizes[plain] >= _BLOCK:
            yield _block(waiting[plain])
            waiting[plain], sizes[plain] = [], 0
    yield from (_block(rest) for rest in waiting.values() if rest)


def _block(rows: Sequence[tuple[int, list[str]]]) -> _Block:
    words = split([text for _, texts in rows for text in texts])
    passage = np.cumsum([0, *(len(texts) for _, texts in rows)])
    return _Block([number for number, _ in rows], words, words.first[passage], words.first[passage[:-1] + 1])


class _Match(NamedTuple):
    """How an evaluation row is overlapped; ascending order is from the weakest to the strongest."""

    coverage: float
    ngrams: int
    before: int
    """Minus the evaluation row's number."""
    places: Numbers
    stretch: tuple[int, int]
    """First word and end of the longest stretch."""

    @property
    def rank(self) -> tuple[float, int, int]:
        """What makes one match better than another."""
        return self.coverage, self.ngrams, self.before


class _Index:
    """The n-grams of the evaluation rows that can be evidence, and the rows that are compared whole.

    `places` (G,) are the words at which an n-gram begins, `keys` (G,) the hashes there in ascending order. `own`
    (W + 1,) counts the own words of prompts and texts up to each word.
    """

    def __init__(self, references: Sequence[Reference], n: int) -> None:
        self.n = n
        self.names = [(reference.name, i) for reference in references for i in range(len(reference.rows))]
        sets = np.repeat(np.arange(len(references)), [len(reference.rows) for reference in references])
        rows = (row for reference in references for row in reference.rows)
        block = _block([(i, passages(row)) for i, row in enumerate(rows)])
        self.words, self.first, self.asked = block.words, block.first, block.asked
        self.row = np.repeat(np.arange(len(sets)), np.diff(self.first))
        ids = word_ids(self.words)
        own = _own_words(ids, self.first, sets)
        self.own = _counts(own & (np.arange(len(ids)) < self.asked[self.row]))
        self.total = self.own[self.asked] - self.own[self.first[:-1]]
        places = begins(self.first, n)
        every = _counts(own)
        rare = rows_having(gram_ids(ids, n)[places], self.row[places]) <= COMMON_ROWS
        self.strong = np.zeros(len(ids), bool)
        self.strong[places] = (every[places + n] - every[places] >= OWN_WORDS) & rare
        places = places[self.strong[places] | (self.own[places + n] > self.own[places])]
        self.keys, self.places = _by_hash(self.words.hashes(places, places + n), places)
        self.sieve, self.shift = _sieve(self.keys)
        spans = _whole(self, sets)
        self.whole_keys, self.whole = _by_hash(self.words.hashes(spans[:, 1], spans[:, 2]), spans)

    def look_up(self, block: _Block) -> Iterator[Finding]:
        """Find the rows of the block that overlap an evaluation row, in no particular order."""
        candidates: dict[int, list[_Match]] = {}
        for shared in self._shared(block):
            self._weigh(shared, candidates)
        equal = dict(self._equal(block))
        for row in candidates.keys() | equal.keys():
            words = block.words.between(int(block.first[row]), int(block.first[row + 1]))
            matches = [*candidates.get(row, ()), *([equal[row]] if row in equal else ())]
            best = self._confirm(words, matches)
            if best:
                shown = self.words.between(*best.stretch)
                yield Finding(block.rows[row], *self.names[-best.before], _excerpt(shown), best.ngrams, best.coverage)

    def _shared(self, block: _Block) -> Iterator[Numbers]:
        """Places with equal hashes, distinct and ascending: the row of the block << 40 | the word of the index."""
        grams = block.words.grams(self.n)
        hits = np.flatnonzero(self.sieve[(grams >> self.shift).view(np.int64)])  # some run on into the next row
        rows = np.searchsorted(block.first, hits, "right") - 1
        low = np.searchsorted(self.keys, grams[hits], "left")
        counts = np.searchsorted(self.keys, grams[hits], "right") - low
        total = np.cumsum(counts)
        begin = done = 0
        while begin < len(hits):
            end = int(np.searchsorted(total, done + _PAIRS, "right"))
            end = int(np.searchsorted(rows, rows[max(end - 1, begin)], "right"))
            part = slice(begin, end)
            behind = np.arange(total[end - 1] - done) - np.repeat(total[part] - counts[part] - done, counts[part])
            places = self.places[np.repeat(low[part], counts[part]) + behind]
            yield np.unique(np.repeat(rows[part], counts[part]) << 40 | places)
            begin, done = end, int(total[end - 1])

    def _weigh(self, shared: Numbers, into: dict[int, list[_Match]]) -> None:
        """Add the pairs of rows that overlap if every hash tells the truth."""
        rows, places = shared >> 40, shared & (1 << 40) - 1
        starts = np.flatnonzero(np.diff(rows * len(self.names) + self.row[places], prepend=-1))
        if not len(starts):
            return
        covered = np.add.reduceat(self._newly_covered(places, starts), starts)
        strong = np.logical_or.reduceat(self.strong[places], starts)
        found = self.row[places[starts]]
        bounds = np.append(starts, len(places))
        for pair in np.flatnonzero(strong | (2 * covered > self.total[found])).tolist():
            chosen = places[bounds[pair] : bounds[pair + 1]]
            coverage = float(covered[pair] / max(self.total[found[pair]], 1))
            match = _Match(coverage, len(chosen), -int(found[pair]), chosen, (0, 0))
            into.setdefault(int(rows[starts[pair]]), []).append(match)

    def _newly_covered(self, places: Numbers, starts: Numbers) -> Numbers:
        """Own words of the prompt that each n-gram covers and those before it in its group do not."""
        ends = places + self.n
        fresh = places.copy()
        fresh[1:] = np.clip(ends[:-1], places[1:], ends[1:])
        fresh[starts] = places[starts]
        return self.own[ends] - self.own[fresh]

    def _confirm(self, words: Sequence[bytes], matches: Iterable[_Match]) -> _Match | None:
        """The best match by what is really shared; what the hashes promised bounds that from above."""
        text = b" %b " % b" ".join(words)
        best: _Match | None = None
        for promised in sorted(matches, key=lambda match: match.rank, reverse=True):
            if best and best.rank >= promised.rank:
                break
            real = self._measure(text, promised) if promised.ngrams else promised
            if real and (best is None or real.rank > best.rank):
                best = real
        return best

    def _measure(self, text: bytes, promised: _Match) -> _Match | None:
        row = -promised.before
        stretches = list(self._stretches(text, promised.places))
        if not stretches:
            return None
        places = np.concatenate([np.arange(begin, end - self.n + 1) for begin, end in stretches])
        covered = int(self._newly_covered(places, np.zeros(1, np.int64)).sum())
        if not (self.strong[places].any() or 2 * covered > self.total[row]):
            return None
        longest = max(stretches, key=lambda stretch: stretch[1] - stretch[0])
        return _Match(covered / max(int(self.total[row]), 1), len(places), promised.before, places, longest)

    def _stretches(self, text: bytes, places: Numbers) -> Iterator[tuple[int, int]]:
        """Spans of n-grams at consecutive places that stand in the text, each n-gram in one; first word and end."""
        for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
            begin, last = int(run[0]), int(run[-1])
            while begin <= last:
                end = last + self.n
                if not self._stands_in(text, begin, end):
                    end = begin + self.n - 1
                    while end < last + self.n and self._stands_in(text, begin, end + 1):
                        end += 1
                if end >= begin + self.n:
                    yield begin, end
                begin = max(end - self.n, begin) + 1

    def _stands_in(self, text: bytes, begin: int, end: int) -> bool:
        return b" %b " % b" ".join(self.words.between(begin, end)) in text

    def _equal(self, block: _Block) -> Iterator[tuple[int, _Match]]:
        """Rows of the block whose prompt, or all of which, equals an evaluation row; the later of two is better."""
        for last in (block.first[1:], block.asked):
            hashes = block.words.hashes(block.first[:-1], last)
            low, high = (np.searchsorted(self.whole_keys, hashes, side) for side in ("left", "right"))
            for row in np.flatnonzero(high > low).tolist():
                words = block.words.between(int(block.first[row]), int(last[row]))
                same = [
                    span for span in self.whole[low[row] : high[row]].tolist() if words == self.words.between(*span[1:])
                ]
                if same:
                    number, begin, end = min(same)
                    yield row, _Match(1.0, 0, -number, np.zeros(0, np.int64), (begin, end))


def _counts(flags: NDArray[np.bool_]) -> Numbers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(flags)])


def _by_hash(hashes: Hashes, values: Numbers) -> tuple[Hashes, Numbers]:
    order = np.argsort(hashes)
    return hashes[order], values[order]


def _is_template(rows: Numbers, size: int) -> NDArray[np.bool_]:
    return (rows >= TEMPLATE_ROWS) & (rows > TEMPLATE_SHARE * size)


def _own_words(ids: Numbers, first: Numbers, sets: Numbers) -> NDArray[np.bool_]:
    """Whether each word stands outside of its set's template, (W,); equal rows of a set count once."""
    own = np.ones(len(ids), bool)
    known: dict[tuple[int, bytes], int] = {}
    spans = zip(sets.tolist(), pairwise(first.tolist()), strict=True)
    same = np.array([known.setdefault((of, ids[slice(*span)].tobytes()), len(known)) for of, span in spans], np.int64)
    row = np.repeat(np.arange(len(sets)), np.diff(first))
    sizes = np.bincount([of for of, _ in known])
    grams, places = gram_ids(ids, TRIGRAM), begins(first, TRIGRAM)
    for number, size in enumerate(sizes.tolist()):
        chosen = places[sets[row[places]] == number]
        having = rows_having(grams[chosen], same[row[chosen]])
        for offset in range(TRIGRAM):
            own[chosen[_is_template(having, size)] + offset] = False
    return own


def _whole(index: _Index, sets: Numbers) -> Numbers:
    """What is compared whole, (K, 3): an evaluation row, the first word and the end of its prompt or of all of it."""
    groups: dict[tuple[Any, ...], list[tuple[int, int, int, int]]] = {}
    rows = np.flatnonzero((index.asked - index.first[:-1] < index.n) | (index.total == 0)).tolist()
    for row in rows:
        begin, asked, end = int(index.first[row]), int(index.asked[row]), int(index.first[row + 1])
        groups.setdefault((int(sets[row]), *index.words.between(begin, asked)), []).append((row, begin, asked, end))
    sizes = np.bincount(sets)
    spans = {(row, begin, end) for group in groups.values() for row, begin, _, end in group}
    for (of, *_), group in groups.items():
        if not _is_template(np.array(len(group)), int(sizes[of])):
            spans |= {(row, begin, asked) for row, begin, asked, _ in group}
    return np.array(sorted(span for span in spans if span[1] < span[2]), np.int64).reshape(-1, 3)


def _sieve(keys: Hashes) -> tuple[NDArray[np.bool_], np.uint64]:
    """A table that is true at the leading bits of every key, and how far to shift a hash to these."""
    bits = min(max((16 * len(keys)).bit_length(), 12), 26)
    shift = np.uint64(64 - bits)
    table = np.zeros(1 << bits, bool)
    table[(keys >> shift).view(np.int64)] = True
    return table, shift


def _excerpt(words: Sequence[bytes]) -> str:
    shown = b" ".join(words[:EXCERPT]).decode()
    return f"{shown} …" if len(words) > EXCERPT else shown
