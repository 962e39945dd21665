"""What a person sees while a job runs: one line a stage, a progress bar, a summary at the end."""

import logging
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

LOG = "foundry.log"
"""The log of a job, in its run directory."""
_LOG = logging.getLogger("foundry")
_LOG.addHandler(logging.NullHandler())  # without a log file, nothing is said twice
_OUT = Console(highlight=False, soft_wrap=True)
_ERR = Console(stderr=True, highlight=False, soft_wrap=True)


def stage(name: str, text: str) -> None:
    """Say what a stage did."""
    _OUT.print(f"[bold cyan]{name:<9}[/]{escape(text)}")
    _LOG.info("%s: %s", name, text)


def near(path: Path | str) -> str:
    """A path as a person would type it from here: relative if it lies below; a URI as it is."""
    if ":/" in str(path):
        return str(path)
    place = Path(path)
    return str(place.relative_to(Path.cwd())) if place.is_relative_to(Path.cwd()) else str(place)


def warn(text: str) -> None:
    """Warn on stderr and in the log."""
    _ERR.print(f"[yellow]warning[/]  {escape(text)}")
    _LOG.warning("%s", text)


def mute() -> None:
    """Say nothing from here on: another process of the same job does."""
    _OUT.quiet = _ERR.quiet = True


def summary(title: str, rows: Mapping[str, str], *, passed: bool) -> None:
    """Print a framed table of names and values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, escape(value))
    _OUT.print(Panel(table, title=title, title_align="left", border_style="green" if passed else "red", expand=False))


def lines(rows: Iterable[Sequence[str]], header: Sequence[str]) -> None:
    """Print a plain table."""
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    _OUT.print(table)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int]) -> None:
    """Print a table, a line a row, the columns at the places in `right` flush right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for at, title in enumerate(header):
        made.add_column(title, justify="right" if at in right else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    room = sum(3 + widest(texts) for texts in zip(header, *rows, strict=True))
    Console(highlight=False, width=max(_OUT.width, room)).print(made)


def widest(texts: Iterable[str]) -> int:
    """Columns of the terminal that the widest of some texts takes."""
    return max(map(cell_len, texts))


def width() -> int | None:
    """Columns of the terminal, None where the output goes elsewhere."""
    return _OUT.width if _OUT.is_terminal else None


def findings(rows: Iterable[tuple[str, str, str]]) -> None:
    """Print findings: a mark with colour, a name and a detail."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for mark, name, detail in rows:
        table.add_row(mark, escape(name), escape(detail))
    _OUT.print(table)


def log_to(path: Path) -> logging.Handler:
    """Send what foundry and its libraries log to a file; the terminal only gets warnings of foundry itself."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    for library in ("transformers", "trl", "mlflow", "accelerate", "peft"):
        logging.getLogger(library).propagate = True
    return handler


def stop_log(handler: logging.Handler) -> None:
    """Close a log that `log_to` opened."""
    logging.getLogger().removeHandler(handler)
    handler.close()


def _progress() -> Progress:
    return Progress(
        TextColumn("[bold cyan]{task.description:<9}[/]"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("·"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=_OUT,
        transient=not sys.stdout.isatty(),
        disable=_OUT.quiet or not sys.stdout.isatty(),
    )


class TrainingProgress:
    """A bar with loss, tokens a second and the time left; plain lines where there is no terminal."""

    def __init__(self) -> None:
        self._bar = _progress()
        self._task: Any = None
        self._total = 0

    def start(self, total: int, done: int) -> None:
        """Show the bar at step `done` of `total`."""
        self._total = total
        self._bar.start()
        self._task = self._bar.add_task("train", total=total, completed=done, note="")

    def step(self, done: int, loss: float, speed: float) -> None:
        """Move it to step `done`."""
        note = f"loss {loss:.3f} · {speed:.0f} tok/s"
        self._bar.update(self._task, completed=done, note=note)
        if self._bar.disable and (done % max(self._total // 5, 1) == 0 or done == self._total):
            stage("train", f"{done}/{self._total} {note}")

    def stop(self) -> None:
        """Take the bar away; it may be called twice."""
        self._bar.stop()


def track(items: Sequence[Any], name: str, note: str) -> Iterator[Any]:
    """Go through `items` with a progress bar."""
    with _progress() as bar:
        task = bar.add_task(name, total=len(items), note=note)
        for item in items:
            yield item
            bar.advance(task)
