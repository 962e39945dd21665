"""Numbers, results and names as people read them."""

import math

from foundry.hardware import size
from foundry.lot import SHORT
from foundry.records import Measurement, Verdict

SIDES = {"min": "at least", "max": "at most"}
"""The bounds of a gate other than a gain, and how they are said."""


_HELD = {
    "nf4": "held in 4 bits (NF4) while this was trained and in examinations, the baseline's too",
    "stored": "in few bits already in its files, and so while this was trained and in examinations",
}


def status(verdict: Verdict) -> str:
    """Say `passed`, `failed` or `not examined`."""
    return ("passed" if verdict.passed else "failed") if verdict.examined else "not examined"


def conclusion(verdict: Verdict, unmet: str) -> str:
    """Say what became of a job; `unmet` is why its package may not be published, empty where it may."""
    if not verdict.passed:
        return "FAILED: nothing was published"
    return f"{status(verdict)}, but its package FAILED: nothing was published" if unmet else status(verdict)


def precision(quantized: str) -> str:
    """Say how a base was held, by a checkpoint's `quantized`; nothing where it was held as a whole."""
    return _HELD.get(quantized, "")


def headline(measurement: Measurement) -> str:
    """Say one result, as in `logic_score 50.0 % → 80.6 %, +30.6 points (95 %: +26.1 to +35.0); required +20.0`."""
    before, after = show(measurement, measurement.baseline), show(measurement, measurement.measured)
    unit = " points" if is_share(measurement) else ""
    sure = f" (95 %: {interval(measurement)})" if measurement.interval else ""
    asked = f"; required {required(measurement)}" if measurement.required else ""
    return f"{measurement.name} {before} → {after}, {signed(measurement, measurement.gain)}{unit}{sure}{asked}"


def interval(measurement: Measurement) -> str:
    """Write the 95 % interval of the gain, as in `+26.1 to +35.0`; a dash where there is none."""
    if measurement.interval is None:
        return "–"
    lower, upper = measurement.interval
    return f"{signed(measurement, lower)} to {signed(measurement, upper)}"


def show(measurement: Measurement, value: float) -> str:
    """Write a value of this metric: a percentage where the metric is a score from 0 to 1."""
    return minus(f"{100 * value:.1f} %") if is_share(measurement) else number(value)


def signed(measurement: Measurement, difference: float) -> str:
    """Write a difference of this metric; in points where the metric is a score from 0 to 1."""
    return minus(f"{100 * difference:+.1f}" if is_share(measurement) else f"{difference:+.4g}")


def required(measurement: Measurement) -> str:
    """Write the bounds of a metric's gate, as in `+20.0 and at least 75.0 %`; a dash where there is none."""
    bounds, words = measurement.required, []
    if "min_gain" in bounds and measurement.lower_is_better:
        words.append(f"change at most {signed(measurement, -bounds['min_gain'])}")
    elif "min_gain" in bounds:
        words.append(signed(measurement, bounds["min_gain"]))
    words += [f"{side} {show(measurement, bounds[key])}" for key, side in SIDES.items() if key in bounds]
    if "min_retention" in bounds:
        words.append(f"{100 * bounds['min_retention']:.0f} % of the best parent's gain")
    return " and ".join(words) or "–"


def size_of(measurement: Measurement, difference: float) -> str:
    """Write how large a difference of this metric is, as in `2.0 points`."""
    if is_share(measurement):
        return f"{100 * abs(difference):.1f} points"
    return number(abs(difference))


def is_share(measurement: Measurement) -> bool:
    """Whether a metric is shown as a percentage: answers are judged, and both of its values lie between 0 and 1."""
    return measurement.judged and 0 <= measurement.measured <= 1 and 0 <= measurement.baseline <= 1


def minus(text: str) -> str:
    """Write a minus sign where a hyphen stands."""
    return text.replace("-", "\N{MINUS SIGN}")


def number(value: float) -> str:
    """Write a number for people: thousands apart, four significant digits, words from a million on."""
    for unit, word in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if unit <= abs(value) < math.inf:
            return minus(f"{value / unit:,.1f}{word}")
    return minus(f"{value:,.0f}" if value % 1 == 0 or 1000 <= abs(value) < math.inf else f"{value:.4g}")


def duration(seconds: float) -> str:
    """Write a length of time, as in `2 min 22 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def fact(item: tuple[str, float]) -> tuple[str, str]:
    """Turn a metric of the training into a label and a value that people can read."""
    name, value = item
    if name.endswith("_bytes"):
        return plain(name.removesuffix("_bytes")), size(value)
    if name.endswith("_seconds"):
        return plain(name.removesuffix("_seconds") + " time"), duration(value)
    return plain(name), number(value)


def plain(name: str) -> str:
    """Turn a name in snake case into words."""
    return name.replace("_", " ").strip().capitalize()


def short(digest: str) -> str:
    """Shorten a SHA-256 to the digits that people are shown."""
    return digest[:SHORT]
