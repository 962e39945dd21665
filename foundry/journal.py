"""The journal of metrics: an append-only file that a kill cannot empty, and the thread that sends it on."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

INTERVAL = 1.0
"""Seconds between two looks at the journal."""

RETRY = 10.0
"""Seconds to wait after something could not be sent."""

BATCH = 1000
"""Points that are sent together; MLflow takes no more in one request."""


class Point(NamedTuple):
    """One value of one metric; `time_ms` is in milliseconds since the epoch."""

    name: str
    value: float
    time_ms: int
    step: int


class Journal:
    """A file with one JSON line `{"step", "time", "metrics"}` for each step; time in seconds since the epoch.

    A line is one unbuffered write, so it outlives the process from the moment `append` returns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._torn = False

    def append(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a line.

        Raises:
            OSError: The file cannot be written.
        """
        values = {name: float(value) for name, value in metrics.items()}
        line = json.dumps({"step": int(step), "time": time.time(), "metrics": values}) + "\n"
        file = self._file or self._open()
        data = ("\n" + line if self._torn else line).encode()
        self._torn = True  # stays so when the disk takes nothing, or only a part
        self._torn = file.write(data) < len(data)

    def _open(self) -> BinaryIO:
        self._file = self.path.open("a+b", buffering=0)
        if self._file.tell():
            self._file.seek(-1, 2)
            self._torn = self._file.read(1) != b"\n"
        return self._file

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
            self._file = None


def batches(path: Path, offset: int = 0) -> Iterator[tuple[list[Point], int]]:
    """Read the journal from byte `offset` on, in batches of whole lines.

    A line that is still being written is left for the next time; a line that a crash tore is passed over.

    Yields:
        The points, no more than BATCH unless one line alone has more, and the offset after them.

    Raises:
        OSError: The file is there but cannot be read.
    """
    if not path.exists():
        return
    points: list[Point] = []
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                break
            more = _points(line)
            if points and len(points) + len(more) > BATCH:
                yield points, offset
                points = []
            points += more
            offset += len(line)
    if points:
        yield points, offset


def _points(line: bytes) -> list[Point]:
    try:
        entry = json.loads(line)
    except ValueError:
        return []
    time_ms = round(entry["time"] * 1000)
    return [Point(name, value, time_ms, entry["step"]) for name, value in entry["metrics"].items()]


class Flusher:
    """Sends what a journal gains, about once a second, from a thread of its own.

    What could not be sent is tried again: the place in the journal moves on only after `send` has returned.
    """

    def __init__(
        self, path: Path, send: Callable[[Sequence[Point]], None], troubled: Callable[[Exception], None]
    ) -> None:
        self._path = path
        self._send = send
        self._troubled = troubled
        self._offset = 0
        self._drained = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="foundry-flusher", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def finish(self) -> bool:
        """Send the rest, end the thread, and tell whether everything was sent."""
        self._stop.set()
        self._thread.join()
        return self._drained

    def _loop(self) -> None:
        pause = INTERVAL
        while not self._stop.wait(pause):
            pause = INTERVAL if self._drain() else RETRY
        self._drained = self._drain()

    def _drain(self) -> bool:
        try:
            for points, offset in batches(self._path, self._offset):
                self._send(points)
                self._offset = offset
        except Exception as error:  # noqa: BLE001  # MLflow lets errors of its store, of HTTP and of the disk through
            self._troubled(error)
            return False
        return True
