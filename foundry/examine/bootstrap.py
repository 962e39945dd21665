"""How sure a gain is: the paired bootstrap over the questions, and how many questions would be enough.

Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 (percentile interval) and 6 (standard
error); for the number of questions, any text on the power of a two-sided z test.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from foundry.examine import Score

RESAMPLES = 10_000
LEVEL = 0.95
POWER = 0.8
_AT_ONCE = 2**22
"""Questions drawn at a time, over all resamples."""


@dataclass(frozen=True)
class Gain:
    """The 95 % interval of a gain, and its standard error."""

    lower: float
    upper: float
    error: float


def gain(before: Score, after: Score, resamples: int = RESAMPLES, seed: int = 0) -> Gain | None:
    """The interval of `after.value - before.value` when the questions are drawn anew.

    Each resample draws as many questions as there are, with replacement, within each class, and takes both models'
    values on the same draw. It knows only the questions it is given: where all of them changed alike, or none did, the
    interval has no width.

    Args:
        before: The baseline's score, N questions.
        after: The student's, on the same questions.
        resamples: How often the questions are drawn.
        seed: Of the draws.

    Returns:
        The interval from the 2.5th to the 97.5th percentile of the resamples' gains; None for fewer than two questions.
    """
    return _interval((before, after), (-1.0, 1.0), resamples, seed)


def beyond_share(
    before: Score, after: Score, parent: Score, share: float, resamples: int = RESAMPLES, seed: int = 0
) -> Gain | None:
    """The interval of `(after - before) - share · (parent - before)` when the questions are drawn anew.

    A merge keeps at least such a share of a parent's gain where this is not below 0. The ratio itself is not drawn: it
    has no end where a resample's parent gains nothing (Fieller 1954, doi:10.1111/j.2517-6161.1954.tb00159.x, asks the
    same of a ratio).

    Args:
        before: The baseline's score, N questions.
        after: The merge's, on the same questions.
        parent: The parent's, on the same questions.
        share: Of the parent's gain.
        resamples: How often the questions are drawn.
        seed: Of the draws.
    """
    return _interval((before, after, parent), (share - 1, 1.0, -share), resamples, seed)


def _interval(scores: tuple[Score, ...], factors: tuple[float, ...], resamples: int, seed: int) -> Gain | None:
    """The interval of a sum of values, each with its factor."""
    if len(scores[0].items) < 2:
        return None
    parts = _drawn(scores, resamples, seed)
    with np.errstate(invalid="ignore"):
        gains = np.concatenate([np.array(factors) @ np.stack(part) for part in parts])
    gains = gains[np.isfinite(gains)]
    if not len(gains):
        return None
    tail = 100 * (1 - LEVEL) / 2
    lower, upper = np.percentile(gains, [tail, 100 - tail])
    return Gain(float(lower), float(upper), float(gains.std(ddof=1)))


def _drawn(scores: tuple[Score, ...], resamples: int, seed: int) -> Iterator[list[NDArray[np.float64]]]:
    """The values of the scores on the same drawn questions, part after part, each (R,)."""
    draw = np.random.default_rng(seed)
    count = len(scores[0].items)
    names = np.array(scores[0].classes or [""] * count)
    classes = [np.flatnonzero(names == name) for name in np.unique(names)]
    parts = [(np.array(s.items, float), np.array(s.weights or [1.0] * count, float)) for s in scores]
    left, size = resamples, max(_AT_ONCE // count, 1)
    while left:
        size = min(size, left)
        left -= size
        means = [np.zeros(size) for _ in scores]
        for members in classes:
            picked = members[draw.integers(0, len(members), (size, len(members)))]  # (R, n)
            for total, (items, weights) in zip(means, parts, strict=True):
                np.add(total, (items * weights)[picked].sum(1) / weights[picked].sum(1), out=total)
        with np.errstate(over="ignore"):
            yield [
                np.exp(mean / len(classes)) if score.exponential else mean / len(classes)
                for mean, score in zip(means, scores, strict=True)
            ]


def questions_needed(distance: float, error: float, count: int) -> int:
    """How many questions would show a distance, if they vary as the given ones do.

    A gain is shown when its interval's near end lies beyond the bound, which it does in 80 % of examinations when the
    gain is (z(0.975) + z(0.8)) standard errors = 2.80 standard errors away from it. The standard error falls with the
    root of the number of questions, so `n = count · (2.80 · error / distance)²`.

    Args:
        distance: How far the gain lies beyond the bound, above 0.
        error: The gain's standard error with `count` questions.
        count: Questions that were asked.
    """
    normal = NormalDist()
    errors = normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(POWER)
    return math.ceil(count * (errors * error / distance) ** 2)
