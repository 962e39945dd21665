"""What logging costs the training thread: our journal beside `mlflow.log_metric(s)` on the same SQLite store.

Rounds of both alternate. Between two calls a buffer larger than the caches is hashed without the GIL, as a
training step would compute: the flusher runs meanwhile, and the next call finds the caches cold.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from foundry import tracking

ROUNDS = 5
STEPS = 300
WORK = bytes(16 * 2**20)
"""About ten milliseconds of hashing."""

ONE = {"loss": 1.234567}
FIVE = {"loss": 1.234567, "lr": 2e-4, "grad_norm": 0.98765, "epoch": 0.25, "tokens_per_second": 1234.5}

Log = Callable[[Mapping[str, float], int], Any]


def run() -> dict[str, Any]:
    """Measure in a store of its own; returns rows in µs a step, the ratio being peer over ours."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            return {"name": "tracking", "rows": _rows(Path(place))}
        finally:
            os.chdir(home)


def _rows(run_dir: Path) -> list[dict[str, Any]]:
    import mlflow

    with tracking.start(run_dir, {}, "ours", {}) as ours:
        mlflow.set_tracking_uri(ours.store)
        mlflow.set_experiment("foundry")
        with mlflow.start_run(run_name="peer"):
            one = _compare(ours.metrics, lambda values, step: mlflow.log_metric("loss", values["loss"], step), ONE)
            five = _compare(ours.metrics, mlflow.log_metrics, FIVE)
    return [*_summarise("1 metric a step", *one), *_summarise("5 metrics a step", *five)]


def _compare(ours: Log, peer: Log, values: Mapping[str, float]) -> tuple[list[list[float]], list[list[float]]]:
    rounds: tuple[list[list[float]], list[list[float]]] = ([], [])
    for number in range(ROUNDS):
        for log, times in zip((ours, peer), rounds, strict=True):
            times.append(_time(log, values, number * STEPS))
    return rounds


def _time(log: Log, values: Mapping[str, float], first: int) -> list[float]:
    """Seconds that each of STEPS calls takes."""
    times = []
    for step in range(first, first + STEPS):
        hashlib.sha256(WORK)
        begun = time.perf_counter()
        log(values, step)
        times.append(time.perf_counter() - begun)
    return times


def _summarise(what: str, ours: list[list[float]], peer: list[list[float]]) -> list[dict[str, Any]]:
    def row(statistic: str, of: Callable[[list[float]], float]) -> dict[str, Any]:
        mine, theirs = (1e6 * median(of(times) for times in rounds) for rounds in (ours, peer))
        figures = {"ours": round(mine, 1), "peer": round(theirs, 1), "ratio": round(theirs / mine, 1)}
        return {"what": f"{what}, {statistic}", **figures, "unit": "µs/step"}

    return [row("median", median), row("p99", lambda times: quantiles(times, n=100)[98])]


if __name__ == "__main__":
    print(json.dumps(run(), indent=2, ensure_ascii=False))
