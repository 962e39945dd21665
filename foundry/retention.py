"""How much of its parents' gains a merge keeps."""

from collections.abc import Iterable

from foundry.records import Measurement


def best_parent(measurement: Measurement) -> str | None:
    """The parent that gains most, by its name; None without parents."""
    sign = -1.0 if measurement.lower_is_better else 1.0
    return max(measurement.parents, key=lambda name: sign * measurement.parents[name], default=None)


def retention(measurement: Measurement) -> float | None:
    """The share of the best parent's gain that a merge keeps; None without a parent that gains."""
    best = best_parent(measurement)
    if best is None:
        return None
    sign = -1.0 if measurement.lower_is_better else 1.0
    gained = sign * (measurement.parents[best] - measurement.baseline)
    return sign * measurement.gain / gained if gained > 0 else None


def tracked(measurements: Iterable[Measurement]) -> dict[str, float]:
    """What MLflow has of it: `<metric>_retention`, and `retention`, the least where a gate asks for a retention."""
    shares = {one.name: (retention(one), "min_retention" in one.required) for one in measurements}
    found = {f"{name}_retention": share for name, (share, _) in shares.items() if share is not None}
    asked = [share for share, wanted in shares.values() if wanted and share is not None]
    return found | ({"retention": min(asked)} if asked else {})
