"""The pictures of a run's page as SVG geometry: the loss curve, a score's bars, how near rows are to each other."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from foundry.records import Measurement, Nearness
from foundry.words import SIDES, is_share, minus, number, show

Point = tuple[float, float]
"""A step and the loss at it."""

LEFT, RIGHT, TOP, BOTTOM = 64.0, 608.0, 34.0, 270.0
"""The plotting area of the loss curve within its picture of 640 x 326 units."""


@dataclass(frozen=True)
class Curve:
    """The loss curve in SVG units; a tick is a place and a label, a dot a place and words.

    There are either dots or, with very many losses, the `smooth` average over `window` of them.
    """

    line: str
    smooth: str
    window: int
    dots: Sequence[tuple[float, float, str]]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    summary: str


def read_losses(path: Path) -> list[Point]:
    """Read the finite losses of a metrics.jsonl in the order of their steps.

    A step that was run again after a resume counts as it went last. A broken line is passed over.
    """
    losses: dict[int, float] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
            step, loss = int(entry["step"]), entry["metrics"]["loss"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(loss, (int, float)) and math.isfinite(loss):
            losses[step] = float(loss)
    return sorted(losses.items())


def draw_curve(losses: Sequence[Point], few: int = 60) -> Curve:
    """Place at least one loss in the plotting area; more than `few` get an average instead of dots."""
    levels, last = ticks(*span([loss for _, loss in losses])), max(losses[-1][0], 1)
    across, up = scale(0, last, LEFT, RIGHT), scale(levels[0][0], levels[-1][0], BOTTOM, TOP)

    def path(points: Sequence[Point]) -> str:
        return " ".join(f"{across(step):.1f},{up(loss):.1f}" for step, loss in thin(points))

    many, window = len(losses) > few, len(losses) // 20 * 2 + 1
    return Curve(
        line=path(losses),
        smooth=path(average(losses, window)) if many else "",
        window=window,
        dots=() if many else [(across(s), up(v), f"step {s:,}: loss {number(v)}") for s, v in losses],
        x_ticks=[(across(step), label) for step, label in ticks(0, last) if step <= last and step % 1 == 0],
        y_ticks=[(up(loss), label) for loss, label in levels],
        summary=_summary(losses),
    )


def _summary(losses: Sequence[Point]) -> str:
    (first, start), (last, end) = losses[0], losses[-1]
    if first == last:
        return f"One loss was logged: {number(start)} at step {first:,}."
    step, lowest = min(losses, key=lambda point: point[1])
    way = f"From {number(start)} at step {first:,} to {number(end)} at step {last:,}"
    return f"{way}; lowest {number(lowest)} at step {step:,}."


def span(values: Sequence[float]) -> tuple[float, float]:
    """The values that an axis must show: with zero where it is near, never empty."""
    low, high = min(values), max(values)
    if high - low <= 1e-6 * abs(high):
        return low - (abs(low) / 10 or 1.0), high + (abs(high) / 10 or 1.0)
    return (0.0, high) if 0 <= low < high / 2 else (low, high)


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Map values from low to high onto places from start to end."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def ticks(low: float, high: float, count: int = 5) -> list[tuple[float, str]]:
    """Values with labels that enclose low and high, apart by 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = math.floor(math.log10(rough))
    step = next(factor * 10.0**power for factor in (1, 2, 5, 10) if factor * 10.0**power >= 0.999 * rough)
    values = [i * step for i in range(math.floor(low / step), math.ceil(high / step) + 1)]
    form = f",.{max(-math.floor(math.log10(step)), 0)}f" if 1e-6 <= step < 1e6 else ".4g"
    return [(value, minus(f"{value:{form}}")) for value in values]


def thin(points: Sequence[Point], stretches: int = 400) -> list[Point]:
    """Keep the lowest and the highest of each stretch of points, so that a spike stays to be seen."""
    length = max(math.ceil(len(points) / stretches), 2)
    parts = (points[start : start + length] for start in range(0, len(points), length))
    return [p for part in parts for p in sorted({f(part, key=lambda point: point[1]) for f in (min, max)})]


def average(points: Sequence[Point], window: int) -> list[Point]:
    """The moving average over `window` points around each, over fewer towards the ends."""
    sums, reach = [0.0, *accumulate(loss for _, loss in points)], window // 2
    ends = ((max(i - reach, 0), min(i + reach + 1, len(points))) for i in range(len(points)))
    return [(step, (sums[b] - sums[a]) / (b - a)) for (step, _), (a, b) in zip(points, ends, strict=True)]


@dataclass(frozen=True)
class Bars:
    """Two bars in SVG units; a mark is a line across them with its style and words, a tick a place and a label."""

    baseline: float
    student: float
    marks: Sequence[tuple[str, float, str]]
    ticks: Sequence[tuple[float, str]]


def draw_bars(measurement: Measurement, width: float = 360.0) -> Bars:
    """Place a metric's two values, its gate and the majority rate on a common scale from zero."""
    marks = _marks(measurement)
    shown = [measurement.measured, measurement.baseline, *(value for *_, value in marks)]
    places = ticks(0, max([0.0, *(value for value in shown if math.isfinite(value))]) or 1.0)
    if is_share(measurement):
        places = [(quarter / 4, f"{25 * quarter} %") for quarter in range(5)]

    def across(value: float) -> float:
        return width * min(max(value / places[-1][0], 0), 1) if math.isfinite(value) else 0.0

    return Bars(
        baseline=across(measurement.baseline),
        student=across(measurement.measured),
        marks=[(style, across(v), f"{words} {show(measurement, v)}") for style, words, v in marks],
        ticks=[(across(place), label) for place, label in places],
    )


def _marks(measurement: Measurement) -> list[tuple[str, str, float]]:
    bounds = dict(measurement.required)
    if "min_gain" in bounds:
        side, best, sign = ("max", min, -1) if measurement.lower_is_better else ("min", max, 1)
        gained = measurement.baseline + sign * bounds["min_gain"]
        bounds[side] = best(gained, bounds.get(side, gained))
    marks = [("gate", f"required: {side}", bounds[key]) for key, side in SIDES.items() if key in bounds]
    if "majority_rate" in measurement.details:
        marks.append(("majority", "majority rate", measurement.details["majority_rate"]))
    return marks


@dataclass(frozen=True)
class Histogram:
    """Columns in the plotting area of the loss curve: left edge, top, width, whether beyond the mark, words."""

    columns: Sequence[tuple[float, float, float, bool, str]]
    mark: float
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]


def draw_nearness(nearness: Nearness) -> Histogram:
    """Place the histogram; its first column, however wide its range, is as narrow as the others."""
    (_, start, _), *rest = nearness.histogram
    first = start - (rest[0][1] - rest[0][0])
    levels = ticks(0, max(count for *_, count in nearness.histogram) or 1)
    across, up = scale(first, 1, LEFT, RIGHT), scale(0, levels[-1][0], BOTTOM, TOP)
    columns = []
    for low, high, count in nearness.histogram:
        left, right = across(max(low, first)), across(high)
        words = f"{low:g} to {high:g}: {count:,} rows"
        columns.append((left + 1, up(count), right - left - 2, low >= nearness.threshold, words))
    return Histogram(
        columns=columns,
        mark=across(max(nearness.threshold, first)),
        x_ticks=[
            (across((first + start) / 2), f"< {start:g}"),
            *((across(i / 10), f"{i / 10:g}") for i in range(6, 11)),
        ],
        y_ticks=[(up(count), label) for count, label in levels if count % 1 == 0],
    )
