"""The page that puts runs side by side: table, loss curves, heat map, trade-offs; one file that needs nothing else.

Numbers and geometry are worked out here; the markup is overview.html.j2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import ge
from typing import Any

from foundry import __version__
from foundry.charts import average, scale, span, thin, ticks
from foundry.comparison import Column, Comparison, better, marked, method
from foundry.report import render
from foundry.runs import Runs
from foundry.words import minus, number

LEFT, RIGHT, TOP, BOTTOM = 64.0, 620.0, 16.0, 280.0
"""The plotting area of a chart within its picture of 640 x 326 units."""

COLOURS = 10
"""Lines of a colour of their own; further ones take them again, dashed."""

UNITS = {
    "peak_memory_bytes": ((2**30, "GiB"), (2**20, "MiB"), (1, "bytes")),
    "train_seconds": ((3600, "hours"), (60, "minutes"), (1, "seconds")),
}
"""What a run costs, and the units of its axis, of which the first that half of the largest cost reaches is taken."""

SMOOTH_FROM = 60
SAMPLES = 4


@dataclass(frozen=True)
class Chart:
    """A chart in SVG units: ticks are places and labels; lines are points, colour and dash; dots have words."""

    title: str
    across: str
    up: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    lines: Sequence[tuple[str, int, bool]] = ()
    dots: Sequence[tuple[float, float, int, str, bool]] = ()
    front: str = ""


@dataclass(frozen=True)
class Heat:
    """A score by method and rank: names of rows and columns, and of each field its text and share of the range."""

    title: str
    methods: Sequence[str]
    ranks: Sequence[str]
    fields: Sequence[Sequence[tuple[str, float] | None]]


def page(table: Comparison, runs: Runs) -> str:
    """Draw the page; loss curves and samples are read from MLflow.

    Args:
        table: The comparison.
        runs: Where its runs came from.
    """
    curves = {run.id: runs.losses(run) for run in table.runs}
    tokens = {run.id: runs.tokens(run) for run in table.runs}
    over = {key: [(tokens[key][s], v) for s, v in points if s in tokens[key]] for key, points in curves.items()}
    goal = next((table.column(name) for name in (*table.scores, "eval_loss")), None)
    charts = [
        losses("Training loss over steps", "step", [curves[run.id] for run in table.runs]),
        losses("Training loss over tokens", "tokens", [over[run.id] for run in table.runs]),
    ]
    trades = [trade(table, goal, key) for key in UNITS]
    return render(
        "overview.html.j2",
        title=table.title,
        columns=table.columns,
        runs=[(run, at % COLOURS, at >= COLOURS) for at, run in enumerate(table.runs)],
        marked=marked,
        noisy=table.noisy,
        charts=[chart for chart in charts if chart],
        trades=[chart for chart in trades if chart],
        heat=heat(table, goal) if goal else None,
        samples=[(run, found) for run in table.runs if (found := samples(runs.verdict(run)))],
        area=(LEFT, RIGHT, TOP, BOTTOM),
        version=__version__,
    )


def losses(title: str, across: str, curves: Sequence[Sequence[tuple[float, float]]]) -> Chart | None:
    """Draw every run's losses; of many points a moving average. None where nothing was logged."""
    points = [point for curve in curves for point in curve]
    if not points:
        return None
    levels = ticks(*span([loss for _, loss in points]))
    last = max(1, *(at for at, _ in points))
    x, y = scale(0, last, LEFT, RIGHT), scale(levels[0][0], levels[-1][0], BOTTOM, TOP)
    lines = []
    for at, curve in enumerate(curves):
        smooth = average(curve, len(curve) // 20 * 2 + 1) if len(curve) > SMOOTH_FROM else curve
        lines.append((" ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in thin(smooth)), at % COLOURS, at >= COLOURS))
    return Chart(
        title=title,
        across=across,
        up="loss",
        x_ticks=[(x(step), label) for step, label in ticks(0, last) if step <= last],
        y_ticks=[(y(loss), label) for loss, label in levels],
        lines=lines,
    )


def trade(table: Comparison, goal: Column | None, key: str) -> Chart | None:
    """Draw the goal against what it costs, with the runs that no other beats in both joined by a line."""
    cost = table.column(key)
    if goal is None or cost is None:
        return None
    top = max((cell.value for cell in cost.cells if isinstance(cell.value, float)), default=0.0)
    unit, name = next((one for one in UNITS[key] if top >= 2 * one[0]), UNITS[key][-1])
    both = [
        (float(price.value) / unit, float(value.value), at)
        for at, (price, value) in enumerate(zip(cost.cells, goal.cells, strict=True))
        if isinstance(price.value, float) and isinstance(value.value, float)
    ]
    if not both:
        return None
    sign = 1 if better(goal.key) is max else -1
    best = pareto([(-price, sign * value) for price, value, _ in both])
    share = all(0 <= value <= 1 for _, value, _ in both)
    levels, prices = ticks(*span([v for _, v, _ in both])), ticks(*span([p for p, *_ in both]))
    x, y = scale(prices[0][0], prices[-1][0], LEFT, RIGHT), scale(levels[0][0], levels[-1][0], BOTTOM, TOP)

    front = sorted((x(both[at][0]), y(both[at][1])) for at in best)
    return Chart(
        title=f"{goal.title.capitalize()} against {cost.title}",
        across=f"{cost.title}, {name}",
        up=goal.title,
        x_ticks=[(x(price), label) for price, label in prices],
        y_ticks=[(y(value), f"{100 * value:g} %" if share else label) for value, label in levels],
        dots=[
            (
                x(p),
                y(v),
                at % COLOURS,
                f"{table.runs[at].name}: {goal.cells[at].text}, {cost.cells[at].text}",
                i in best,
            )
            for i, (p, v, at) in enumerate(both)
        ],
        front=" ".join(f"{across:.1f},{up:.1f}" for across, up in front),
    )


def pareto(points: Sequence[Sequence[float]]) -> set[int]:
    """The points (N, K) that no other beats: none is as high in every way and higher in one."""
    return {
        at
        for at, point in enumerate(points)
        if not any(all(map(ge, other, point)) and tuple(other) != tuple(point) for other in points)
    }


def heat(table: Comparison, goal: Column) -> Heat | None:
    """The mean of the goal by method and rank, None unless there are several of both."""
    found: dict[tuple[str, float], list[float]] = {}
    for run, cell in zip(table.runs, goal.cells, strict=True):
        rank = run.params.get("method.adapter.rank")
        if isinstance(cell.value, float) and rank:
            found.setdefault((method(run.params), float(rank)), []).append(cell.value)
    methods, ranks = sorted({name for name, _ in found}), sorted({rank for _, rank in found})
    if len(methods) < 2 or len(ranks) < 2:  # a map needs both
        return None
    means = {place: sum(values) / len(values) for place, values in found.items()}
    low, high = min(means.values()), max(means.values())
    share = low >= 0 and high <= 1

    def field(place: tuple[str, float]) -> tuple[str, float] | None:
        if place not in means:
            return None
        text = minus(f"{100 * means[place]:.1f} %") if share else number(means[place])
        return text, (means[place] - low) / (high - low) if high > low else 0.5

    fields = [[field((name, rank)) for rank in ranks] for name in methods]
    return Heat(f"{goal.title.capitalize()} by method and rank", methods, [f"{rank:g}" for rank in ranks], fields)


def samples(verdict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Some of a run's questions with the answers of baseline and student, those that changed first."""
    told = [sample for measured in verdict.get("measurements", ()) for sample in measured.get("samples", ())]
    told.sort(key=lambda sample: sample["before_right"] == sample["after_right"])
    return told[:SAMPLES]
