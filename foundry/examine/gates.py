"""Gates: what a metric must reach, and what is said where there are too few questions to tell."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from foundry.config import Settings
from foundry.records import Measurement
from foundry.retention import retention
from foundry.words import size_of

if TYPE_CHECKING:
    from foundry.examine.bootstrap import Gain

Confidence = Literal["interval", "point"]
SLACK = 1e-9
"""Rounding that is forgiven: a bound counts as reached."""


class Gate(Settings):
    """What a metric must reach; bounds that are None are not asked for.

    Attributes:
        min: Lowest value.
        max: Highest value.
        min_gain: Lowest gain over the baseline, in the direction that is better. Below 0 it says how much may be lost.
        min_retention: Lowest share of the best parent's gain that a merge keeps.
    """

    min: float | None = None
    max: float | None = None
    min_gain: float | None = None
    min_retention: float | None = None

    def required(self) -> dict[str, float]:
        """The bounds that are asked for."""
        return {name: bound for name, bound in self.model_dump().items() if bound is not None}


def judged(
    measurement: Measurement,
    gate: Gate,
    interval: "Gain | None",
    confidence: Confidence,
    beyond: "Gain | None" = None,
) -> Measurement:
    """Hold a gate to a measurement.

    A gain must reach `min_gain`, and what is kept of a parent's gain `min_retention`, with the worse end of its
    interval, unless `confidence` is `point`; the other bounds are held to the values as they are.

    Args:
        measurement: The values.
        gate: The bounds.
        interval: Of the gain.
        confidence: What a gain is held with.
        beyond: How far the gain lies beyond the share of the best parent's that `min_retention` asks for.

    Returns:
        The measurement with what was required, whether it passed, its interval, and a note where there is something to
        say of it.
    """
    sign = -1.0 if measurement.lower_is_better else 1.0
    gained = sign * measurement.gain
    ends = (interval.lower, interval.upper) if interval else None
    sure = gained if confidence == "point" else min(sign * end for end in ends) if ends else -math.inf
    kept, note = _kept(measurement, gate, confidence, beyond)
    holds = [
        gate.min is None or measurement.measured >= gate.min - SLACK,
        gate.max is None or measurement.measured <= gate.max + SLACK,
        gate.min_gain is None or sure >= gate.min_gain - SLACK,
        kept,
    ]
    if interval and not note:
        note = _too_few(measurement, gate, interval, gained, confidence)
    return replace(measurement, required=gate.required(), passed=all(holds), interval=ends, note=note)


def _kept(measurement: Measurement, gate: Gate, confidence: Confidence, beyond: "Gain | None") -> tuple[bool, str]:
    """Whether enough of the best parent's gain is kept, and what is to be said of that."""
    if gate.min_retention is None:
        return True, ""
    share = retention(measurement)
    if share is None:
        return False, "no parent gains, so there is nothing to keep"
    if confidence == "point" or share < gate.min_retention - SLACK:
        return share >= gate.min_retention - SLACK, ""
    sign = -1.0 if measurement.lower_is_better else 1.0
    if beyond is not None and min(sign * beyond.lower, sign * beyond.upper) >= -SLACK:
        return True, ""
    return False, _too_few_to_keep(measurement, gate.min_retention, share, beyond)


def _too_few_to_keep(measurement: Measurement, asked: float, share: float, beyond: "Gain | None") -> str:
    from foundry.examine.bootstrap import questions_needed

    shares = f"{100 * asked:.0f} % of the best parent's gain are kept ({100 * share:.0f} %)"
    told = f"{measurement.count:,} questions cannot show that {shares}"
    distance = (share - asked) * abs(measurement.gain / share) if share else 0.0
    if beyond is None or not beyond.error or distance <= SLACK:
        return told
    return f"{told}; need about {_round(questions_needed(distance, beyond.error, measurement.count)):,}"


def _too_few(measurement: Measurement, gate: Gate, interval: "Gain", gained: float, confidence: Confidence) -> str:
    """Say how many questions it takes, where those asked leave open what the gate, or a reader, wants to know."""
    from foundry.examine.bootstrap import questions_needed

    bound = (gate.min_gain or 0.0) if confidence == "interval" else 0.0
    sign = -1.0 if measurement.lower_is_better else 1.0
    distance, sure = gained - bound, min(sign * interval.lower, sign * interval.upper)
    if distance <= SLACK or sure >= bound - SLACK or not interval.error:
        return ""
    enough = questions_needed(distance, interval.error, measurement.count)
    above = f" above {size_of(measurement, bound)}" if bound else ""
    what = f"a gain of {size_of(measurement, gained)}{above}"
    return f"{measurement.count:,} questions cannot show {what}; need about {_round(enough):,}"


def _round(count: int) -> int:
    """Two significant digits: more would claim to know."""
    power = int(10 ** max(len(str(count)) - 2, 0))
    return math.ceil(count / power) * power


def wanting(gates: Mapping[str, Gate]) -> str | None:
    """The first gate that compares with parents, by its key, None if there is none."""
    return next((f"gates.{name}.min_retention" for name, gate in gates.items() if gate.min_retention is not None), None)
