"""Questions to show a person: some of what changed for better and for worse, and of what did not change."""

from collections.abc import Sequence
from typing import Any

from foundry.examine import Metric, Score
from foundry.records import Row, Sample

COUNT = 12


def samples(
    metric: Metric, rows: Sequence[Row], before: Sequence[Any], after: Sequence[Any], base: Score, student: Score
) -> list[Sample]:
    """At most `COUNT` questions with both answers.

    Where answers are right or wrong, they are of every kind of change; elsewhere those that changed most, the better
    of both answers taken as right.
    """
    old, new = (_right(metric, base), _right(metric, student)) if metric.judged else _better(metric, base, student)
    order: Sequence[int] = range(len(base.items))
    if not metric.judged:
        order = sorted(order, key=lambda i: -abs(student.items[i] - base.items[i]))
    kinds = [(False, True), (True, False), (False, False), (True, True)]
    groups = [[i for i in order if (old[i], new[i]) == kind] for kind in kinds]
    share = COUNT // (len(kinds) if metric.judged else 2)
    shown = []
    for i in (i for group in groups for i in group[:share]):
        asked, expected, first = metric.told(rows, before, i)
        shown.append(Sample(asked, expected, first, metric.told(rows, after, i)[2], old[i], new[i]))
    return shown[:COUNT]


def _right(metric: Metric, score: Score) -> list[bool]:
    return [not right for right in score.right] if metric.lower_is_better else score.right


def _better(metric: Metric, base: Score, student: Score) -> tuple[list[bool], list[bool]]:
    sign = -1 if metric.lower_is_better else 1
    gains = [sign * (new - old) for old, new in zip(base.items, student.items, strict=True)]
    return [gain < 0 for gain in gains], [gain > 0 for gain in gains]
