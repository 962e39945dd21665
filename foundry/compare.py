"""`foundry compare`: runs side by side in the terminal, as one page, or as CSV, JSON or Markdown."""

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from foundry import console, store
from foundry.comparison import Column, Comparison, better, compare, marked
from foundry.errors import ConfigError
from foundry.run import write_atomic
from foundry.runs import Runs

LAST = 20

NARROW = (
    *("differs", "method", "rank", "trainable_parameters", "model_bytes", "lot"),
    *("tokens_per_second", "peak_memory_bytes", "train_seconds", "verdict"),
)
"""Columns in the order in which a narrow terminal does without them."""

LEGEND = {"*": "* best of its column", "≈": "≈ cannot be told from the best (95 % intervals)"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("what", nargs="*", help="experiments, sweeps (run id or folder), runs (id, or run directory)")
    parser.add_argument("--sort", metavar="METRIC", help="best first; METRIC:asc or METRIC:desc says which is best")
    parser.add_argument("--filter", default="", metavar="QUERY", help="as MLflow's search has it: metrics.loss < 1")
    parser.add_argument("--last", type=int, default=LAST, metavar="N", help=f"at most N runs, {LAST} by default")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--html", metavar="FILE", help="write one page that needs nothing else")
    for name, about in (("csv", "comma-separated values"), ("json", "JSON"), ("md", "a Markdown table")):
        form.add_argument(f"--{name}", action="store_const", const=name, dest="form", help=f"print {about}")


def run(options: argparse.Namespace) -> None:
    """Compare as the command line asks.

    Raises:
        ConfigError: There is nothing to compare, an argument is wrong, or MLflow cannot be asked.
    """
    if options.last < 1:
        raise ConfigError(f"--last: found {options.last}, expected 1 or more")
    if store.absent(store.uri()):
        raise ConfigError(f"compare: there are no runs yet in {store.public(store.uri())}")
    from mlflow.exceptions import MlflowException

    try:
        _compare(options)
    except MlflowException as error:
        who = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD say who asks"
        why = f"compare: {store.public(store.uri())} cannot be read: {store.public(' '.join(str(error).split())):.200}"
        raise ConfigError(f"{why}; MLFLOW_TRACKING_URI says where runs are, {who}") from error


def _compare(options: argparse.Namespace) -> None:
    with store.opened(store.uri()) as (client, experiment):
        runs = Runs(client, experiment)
    found = runs.find(options.what, options.filter, order(options.sort), options.last)
    if not found.runs:
        raise ConfigError(f"compare: no run in {found.title} of {store.public(store.uri())} fits")
    table = compare(found.title, found.runs)
    if options.html:
        from foundry.overview import page

        write_atomic(Path(options.html), page(table, runs))
        console.stage("compare", f"{len(table.runs)} runs · {console.near(Path(options.html).absolute())}")
    elif options.form:
        print(printed(table, options.form), end="")  # noqa: T201
    else:
        show(table)
        if found.total > len(found.runs) or len(found.runs) == options.last:
            console.stage("", f"the first {options.last} runs; --last N shows more")


def order(sort: str | None) -> list[str]:
    """MLflow's words for an order; the better figures first unless the order says otherwise.

    Raises:
        ConfigError: The direction is neither asc nor desc.
    """
    if not sort:
        return []
    name, _, way = sort.partition(":")
    if way not in {"", "asc", "desc"}:
        raise ConfigError(f"--sort: found {sort!r}, expected METRIC, METRIC:asc or METRIC:desc")
    return [f"metrics.`{name}` {(way or ('asc' if better(name) is min else 'desc')).upper()}"]


def show(table: Comparison) -> None:
    """Print the table; what is the same for every run is said once, below it."""
    own, same = split(table)
    own, hidden = fitting(own, console.width())
    rows = [[marked(column.cells[at]) for column in own] for at in range(len(table.runs))]
    console.stage("compare", f"{table.title} · {len(table.runs)} runs")
    console.table([column.title for column in own], rows, {at for at, column in enumerate(own) if column.numeric})
    if same:
        console.stage("", "the same for all: " + " · ".join(f"{one.title} {one.cells[0].text}" for one in same))
    if hidden:
        titles = ", ".join(column.title for column in hidden)
        console.stage("", f"left out on this narrow terminal: {titles}; --html, --csv, --json and --md have them")
    notes = [note for mark, note in LEGEND.items() if any(cell.startswith(mark) for row in rows for cell in row)]
    if notes:
        console.stage("", " · ".join(notes))


def split(table: Comparison) -> tuple[list[Column], list[Column]]:
    """The columns that tell runs apart, and those that have one text for all of several runs."""
    same = [
        column
        for column in table.columns
        if len(table.runs) > 1 and column.key != "run" and len({cell.text for cell in column.cells}) == 1
    ]
    return [column for column in table.columns if column not in same], same


def fitting(columns: Sequence[Column], width: int | None) -> tuple[list[Column], list[Column]]:
    """The columns that there is room for, and the others; what a run's name says already goes first."""
    left, hidden = list(columns), []
    for key in NARROW:
        room = sum(3 + console.widest([c.title, *map(marked, c.cells)]) for c in left)
        if width is None or room <= width:
            break
        hidden += [column for column in left if column.key == key]
        left = [column for column in left if column.key != key]
    return left, hidden


def printed(table: Comparison, form: str) -> str:
    """The comparison as `json`, `csv` or `md`."""
    if form == "json":
        return json.dumps(table.records(), indent=2, ensure_ascii=False) + "\n"
    if form == "csv":
        text, records = io.StringIO(), table.records()
        writer = csv.DictWriter(text, records[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()
    rows = [[column.title for column in table.columns], ["---:" if c.numeric else "---" for c in table.columns]]
    rows += [[marked(column.cells[at]) for column in table.columns] for at in range(len(table.runs))]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |\n" for row in rows)
