"""Rows kept as canonical JSON: about as large as their text, where a dict for each would take five times that."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

import orjson

from foundry.errors import DataError
from foundry.lot import canonical
from foundry.records import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LIMIT = 2**64
_NUMBERED = (b'"tool', b'"schema"', b'"task"')


def encode(row: Mapping[str, Any]) -> bytes:
    """Canonical JSON of a row, the same bytes as `lot.canonical` gives, several times faster for most rows.

    Raises:
        DataError: It has a lone surrogate, a NaN, or something that JSON has no word for.
    """
    try:
        text = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
        # Only these hold numbers, which orjson writes otherwise (1e16 instead of 1e+16).
        return canonical(row) if any(name in text for name in _NUMBERED) else text
    except (DataError, TypeError) as error:
        if "surrogates" in str(error):
            raise DataError("has a lone surrogate or bytes that are not UTF-8") from None
        raise DataError(f"cannot be written as JSON: {error}") from None


class Pile:
    """Canonical rows as they come in, with their digests."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.ends = array("Q", [0])
        self.digests = bytearray()

    def __len__(self) -> int:
        return len(self.ends) - 1

    def add(self, row: bytes) -> None:
        """Add a row that `encode` wrote."""
        self.text += row
        self.ends.append(len(self.text))
        self.digests += hashlib.sha256(row).digest()

    def extend(self, other: "Pile") -> None:
        """Add the rows of another pile, which is not to be used any more: an empty pile takes over its memory."""
        if not len(self):
            self.text, self.ends, self.digests = other.text, other.ends, other.digests
            return
        import numpy as np

        ends = np.frombuffer(other.ends, np.uint64)[1:] + np.uint64(len(self.text))
        self.text += other.text
        self.ends.frombytes(ends.tobytes())
        self.digests += other.digests


class Rows(Sequence[Row]):
    """An immutable sequence of rows, each decoded when it is asked for; slices and selections share one text."""

    def __init__(self, pile: Pile, picked: "NDArray[np.int64] | None" = None) -> None:
        import numpy as np

        self._pile = pile
        self._picked = np.arange(len(pile)) if picked is None else picked

    @classmethod
    def of(cls, *parts: Iterable[Row]) -> Self:
        """Put rows from several places together; `Rows` alone are returned as they are, since they never change.

        Raises:
            DataError: One of them has no canonical JSON.
        """
        if len(parts) == 1 and isinstance(parts[0], cls):
            return parts[0]
        pile = Pile()
        for part in parts:
            for row in part.encoded() if isinstance(part, Rows) else map(encode, part):
                pile.add(row)
        return cls(pile)

    def __len__(self) -> int:
        return len(self._picked)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Row | Self:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        row: Row = orjson.loads(self._raw(int(self._picked[index])))
        return row

    def __iter__(self) -> Iterator[Row]:
        return map(orjson.loads, self.encoded())

    def _raw(self, place: int) -> bytes:
        return bytes(self._pile.text[self._pile.ends[place] : self._pile.ends[place + 1]])

    def encoded(self) -> Iterator[bytes]:
        """The canonical JSON of each row."""
        return map(self._raw, self._picked.tolist())

    def select(self, indices: "Sequence[int] | NDArray[np.int64]") -> Self:
        """The rows at these places, in this order, without a copy."""
        import numpy as np

        return type(self)(self._pile, self._picked[np.asarray(indices, dtype=np.int64)])

    def digests(self) -> "NDArray[np.uint8]":
        """SHA-256 of each row, (N, 32)."""
        import numpy as np

        return np.frombuffer(self._pile.digests, np.uint8).reshape(-1, 32)[self._picked]

    def sha256(self) -> str:
        """SHA-256 of the multiset of rows, as `lot.digest_rows` gives it."""
        import numpy as np

        ranked = np.sort(self.digests().reshape(-1).view("S32"))
        return hashlib.sha256(ranked.tobytes()).hexdigest()

    def drawn(self, seed: int) -> tuple[Self, "NDArray[np.float64]"]:
        """The rows in an order drawn from the seed and each row alone, with the lots they drew (0 to 1, rising).

        The order does not depend on that of the rows, and the lot of a row not on the other rows. So the first
        rows are a sample, and those below a share are a split that stays as it is when rows are added.
        """
        import numpy as np

        words = np.ascontiguousarray(self.digests()[:, :8]).view("<u8").reshape(-1)
        lots = _mixed(words ^ _mixed(np.array([seed % _LIMIT], dtype="<u8")))
        order = np.argsort(lots, kind="stable")
        return self.select(order), lots[order] / _LIMIT


def _mixed(words: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """SplitMix64's finaliser (Steele et al. 2014): a digest's bits are random already, this makes the seed count."""
    import numpy as np

    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = words ^ (words >> np.uint64(31))
    return mixed
