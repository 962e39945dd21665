"""What reading brings in: rows by shape, and every record that is none with its place and the reason."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePath

from foundry.data.faults import BrokenError, Entry, RecordError, SetAsideError
from foundry.data.formats import NAMED, Converter
from foundry.errors import DataError
from foundry.records import Quarantined, Shape
from foundry.rows import Pile, Rows, encode

GIVE_UP = 100_000
"""Bad records at the beginning after which a source without a single good one is not read on."""

SHOWN = 5
"""How many files the notes name one by one."""


class Harvest:
    """What reading has brought in so far: rows by shape with the places they came from, and what was set aside."""

    def __init__(self, convert: Converter) -> None:
        self._convert = convert
        self._piles: dict[Shape, Pile] = {"instruction": Pile(), "preference": Pile(), "text": Pile()}
        self._places: dict[Shape, tuple[array[int], array[int]]] = {
            shape: (array("L"), array("L")) for shape in self._piles
        }
        self._files: list[str] = []
        self._broken: list[Quarantined] = []
        self._aside: list[Quarantined] = []
        self._bad: list[Quarantined] = []
        self._forms: Counter[tuple[str, str]] = Counter()

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """Every record that is not a row, in the order of files and lines, and where files break off."""
        order = {name: number for number, name in enumerate(self._files)}
        return tuple(sorted([*self._bad, *self._aside, *self._broken], key=lambda bad: (order[bad.source], bad.line)))

    def read(self, name: str, entries: Iterable[Entry]) -> None:
        """Take in a file's records.

        Raises:
            DataError: Every one of the first `GIVE_UP` records is bad.
        """
        self._files.append(name)
        line = 0
        try:
            for line, record in entries:
                try:
                    self._take(name, line, record)
                except SetAsideError as reason:
                    self._aside.append(Quarantined(name, line, str(reason)))
                except (RecordError, RecursionError) as reason:
                    said = "nested too deep" if isinstance(reason, RecursionError) else str(reason)
                    self._bad.append(Quarantined(name, line, said))
                    if len(self._bad) >= GIVE_UP and not any(self._piles.values()):
                        raise self._useless() from None
        except BrokenError as error:
            self._broken.append(Quarantined(name, line + 1, str(error)))

    def _take(self, name: str, line: int, record: object) -> None:
        if isinstance(record, RecordError):
            raise record
        form, row = self._convert(record)
        try:
            text = encode(row)
        except DataError as error:
            raise RecordError(str(error)) from None
        self._convert.check(row, text)
        self._piles[form.shape].add(text)
        files, lines = self._places[form.shape]
        files.append(len(self._files) - 1)
        lines.append(line)
        self._forms[name, form.name] += 1

    def finished(self) -> tuple[Shape, Rows]:
        """The rows of the shape that most have; the others are bad."""
        shape = max(self._piles, key=lambda shape: len(self._piles[shape]))  # the first one of equals
        for other, places in self._places.items():
            if other != shape:
                reason = f"{_article(other)} row among {shape} rows"
                self._bad += [Quarantined(self._files[file], line, reason) for file, line in zip(*places, strict=True)]
        self._forms = Counter({key: count for key, count in self._forms.items() if NAMED[key[1]].shape == shape})
        return shape, Rows(self._piles[shape])

    def check(self, max_bad_fraction: float) -> None:
        """See that there are rows, and not too many that are bad; call it when `finished`.

        Raises:
            DataError: There are none, or too many of the records are bad or of the files break off.
        """
        kept = max(map(len, self._piles.values()))
        total = kept + len(self._bad)
        if not kept:
            raise self._useless()
        asked = f"more than data.max_bad_fraction={max_bad_fraction} allows; the first: "
        if len(self._broken) > max_bad_fraction * len(self._files):
            files = f"{len(self._broken)} of {len(self._files)} files break off, "
            raise DataError(f"data: {files}{asked}{_shown(self._broken[0])}; fetch the file again")
        if len(self._bad) > max_bad_fraction * total:
            raise DataError(f"data: {len(self._bad):,} of {total:,} records are bad, {asked}{_shown(self._bad[0])}")

    def _useless(self) -> DataError:
        found = [*self._broken, *self._bad, *self._aside]
        first = f"; the first: {_shown(found[0])}" if found else ""
        where = self._files[0] if len(self._files) == 1 else f"{len(self._files)} files"
        return DataError(f"data: {where}: no usable row among {len(self._bad) + len(self._aside):,} records{first}")

    def notes(self) -> tuple[str, ...]:
        """What was recognised, file by file; the files beyond the first few in one line."""
        shown, more = self._files[:SHOWN], self._files[SHOWN:]
        lines = [f"{PurePath(name).name}: {self._recognised([name])}" for name in shown]
        return (*lines, f"{len(more):,} more files: {self._recognised(more)}") if more else tuple(lines)

    def _recognised(self, names: Iterable[str]) -> str:
        chosen = set(names)
        counts: Counter[str] = Counter()
        for (name, form), count in self._forms.items():
            counts[form] += count if name in chosen else 0
        lost: Mapping[str, list[Quarantined]] = {"bad": self._bad, "set aside": self._aside, "broken off": self._broken}
        for word, records in lost.items():
            counts[word] += sum(bad.source in chosen for bad in records)
        return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count) or "nothing"


def _shown(bad: Quarantined) -> str:
    return f"{bad.source}:{bad.line}: {bad.reason}"


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
