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
        self.piles: dict[Shape, Pile] = {"instruction": Pile(), "preference": Pile(), "text": Pile()}
        self.places: dict[Shape, tuple[array[int], array[int]]] = {
            shape: (array("L"), array("L")) for shape in self.piles
        }
        self.files: list[str] = []
        self.broken: list[Quarantined] = []
        self.aside: list[Quarantined] = []
        self.bad: list[Quarantined] = []
        self.forms: Counter[tuple[str, str]] = Counter()

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """Every record that is not a row, in the order of files and lines, and where files break off."""
        order = {name: number for number, name in enumerate(self.files)}
        return tuple(sorted([*self.bad, *self.aside, *self.broken], key=lambda bad: (order[bad.source], bad.line)))

    def read(self, name: str, entries: Iterable[Entry]) -> None:
        """Take in a file's records.

        Raises:
            DataError: Every one of the first `GIVE_UP` records is bad.
        """
        self.files.append(name)
        line = 0
        try:
            for line, record in entries:
                try:
                    self._take(name, line, record)
                except SetAsideError as reason:
                    self.aside.append(Quarantined(name, line, str(reason)))
                except (RecordError, RecursionError) as reason:
                    said = "nested too deep" if isinstance(reason, RecursionError) else str(reason)
                    self.bad.append(Quarantined(name, line, said))
                    if len(self.bad) >= GIVE_UP and not any(self.piles.values()):
                        raise self._useless() from None
        except BrokenError as error:
            self.broken.append(Quarantined(name, line + 1, str(error)))

    def _take(self, name: str, line: int, record: object) -> None:
        if isinstance(record, RecordError):
            raise record
        form, row = self._convert(record)
        try:
            text = encode(row)
        except DataError as error:
            raise RecordError(str(error)) from None
        self._convert.check(row, text)
        self.piles[form.shape].add(text)
        files, lines = self.places[form.shape]
        files.append(len(self.files) - 1)
        lines.append(line)
        self.forms[name, form.name] += 1

    def merge(self, other: "Harvest") -> None:
        """Take in what another harvest read, as if its files had been read here, after those that were."""
        before = len(self.files)
        self.files += other.files
        for shape, pile in other.piles.items():
            self.piles[shape].extend(pile)
            files, lines = other.places[shape]
            self.places[shape][0].extend(file + before for file in files)
            self.places[shape][1].extend(lines)
        self.broken += other.broken
        self.aside += other.aside
        self.bad += other.bad
        self.forms.update(other.forms)

    def finished(self) -> tuple[Shape, Rows]:
        """The rows of the shape that most have; the others are bad."""
        shape = max(self.piles, key=lambda shape: len(self.piles[shape]))  # the first one of equals
        for other, places in self.places.items():
            if other != shape:
                reason = f"{_article(other)} row among {shape} rows"
                self.bad += [Quarantined(self.files[file], line, reason) for file, line in zip(*places, strict=True)]
        self.forms = Counter({key: count for key, count in self.forms.items() if NAMED[key[1]].shape == shape})
        return shape, Rows(self.piles[shape])

    def check(self, max_bad_fraction: float) -> None:
        """See that there are rows, and not too many that are bad; call it when `finished`.

        Raises:
            DataError: There are none, or too many of the records are bad or of the files break off.
        """
        kept = max(map(len, self.piles.values()))
        total = kept + len(self.bad)
        if not kept:
            raise self._useless()
        asked = f"more than data.max_bad_fraction={max_bad_fraction} allows; the first: "
        if len(self.broken) > max_bad_fraction * len(self.files):
            files = f"{len(self.broken)} of {len(self.files)} files break off, "
            raise DataError(f"data: {files}{asked}{_shown(self.broken[0])}; fetch the file again")
        if len(self.bad) > max_bad_fraction * total:
            raise DataError(f"data: {len(self.bad):,} of {total:,} records are bad, {asked}{_shown(self.bad[0])}")

    def _useless(self) -> DataError:
        found = [*self.broken, *self.bad, *self.aside]
        first = f"; the first: {_shown(found[0])}" if found else ""
        where = self.files[0] if len(self.files) == 1 else f"{len(self.files)} files"
        return DataError(f"data: {where}: no usable row among {len(self.bad) + len(self.aside):,} records{first}")

    def notes(self) -> tuple[str, ...]:
        """What was recognised, file by file; the files beyond the first few in one line."""
        shown, more = self.files[:SHOWN], self.files[SHOWN:]
        lines = [f"{PurePath(name).name}: {self._recognised([name])}" for name in shown]
        return (*lines, f"{len(more):,} more files: {self._recognised(more)}") if more else tuple(lines)

    def _recognised(self, names: Iterable[str]) -> str:
        chosen = set(names)
        counts: Counter[str] = Counter()
        for (name, form), count in self.forms.items():
            counts[form] += count if name in chosen else 0
        lost: Mapping[str, list[Quarantined]] = {"bad": self.bad, "set aside": self.aside, "broken off": self.broken}
        for word, records in lost.items():
            counts[word] += sum(bad.source in chosen for bad in records)
        return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count) or "nothing"


def _shown(bad: Quarantined) -> str:
    return f"{bad.source}:{bad.line}: {bad.reason}"


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
