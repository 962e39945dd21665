"""What `foundry compare` takes on a store with 1,000 runs and a million metric points, as a whole process.

The peer is MLflow's own way to a table: `mlflow.search_runs`, which makes a data frame of the same runs.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from statistics import median

from foundry import store

ROUNDS = 5
RUNS, METRICS, STEPS = 1000, 10, 100
OURS = [sys.executable, "-m", "foundry", "compare"]
PEER = "import mlflow; print(mlflow.search_runs(experiment_names=['foundry'], max_results={last}))"


def run():
    """Seconds for the newest 20 runs, for the best 20 of all, and for all 1,000."""
    with tempfile.TemporaryDirectory() as place:
        uri = fill(Path(place))
        rows = [
            row("the newest 20 of 1,000 runs", uri, [], 20),
            row("the best 20 of 1,000 runs", uri, ["--sort", "score"], 20),
            row("all 1,000 runs", uri, ["--last", "1000"], 1000),
        ]
    return {"name": "compare", "rows": rows}


def row(what, uri, words, last):
    """Time both, in turn."""
    commands = {"ours": [*OURS, *words], "peer": [sys.executable, "-c", PEER.format(last=last)]}
    times = {who: [] for who in commands}
    for _ in range(ROUNDS):
        for who, command in commands.items():
            times[who].append(timed(command, uri))
    return {"what": what, **{who: median(found) for who, found in times.items()}, "unit": "s"}


def timed(command, uri):
    begun = time.perf_counter()
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def fill(place):
    """A store with runs as foundry leaves them, written past MLflow, which would take an hour; returns its URI."""
    uri = f"sqlite:///{place}/mlflow.db"
    with store.opened(uri) as (_, experiment):
        pass
    names = [f"metric_{number}" for number in range(METRICS)]
    with sqlite3.connect(place / "mlflow.db") as base:
        for number in range(RUNS):
            made, begun = uuid.uuid4().hex, 1_700_000_000_000 + number
            base.execute(
                "insert into runs (run_uuid, name, source_type, user_id, status, start_time, end_time, "
                "lifecycle_stage, artifact_uri, experiment_id) "
                "values (?, ?, 'LOCAL', 'someone', 'FINISHED', ?, ?, 'active', '', ?)",
                (made, f"run {number}", begun, begun + 60_000, experiment),
            )
            params = [(f"method.setting_{i}", str(number % (i + 2)), made) for i in range(60)]
            base.executemany("insert into params values (?, ?, ?)", params)
            tags = [("mlflow.runName", f"run {number}", made), ("lot", made * 2, made), ("verdict", "passed", made)]
            base.executemany("insert into tags values (?, ?, ?)", tags)
            points = [(name, step / STEPS, begun + step, made, step, False) for name in names for step in range(STEPS)]
            base.executemany("insert into metrics values (?, ?, ?, ?, ?, ?)", points)
            last = [(name, 1.0, begun, STEPS, False, made) for name in names]
            scores = [("score", number / RUNS, begun, 1, False, made), ("score_baseline", 0.5, begun, 1, False, made)]
            base.executemany("insert into latest_metrics values (?, ?, ?, ?, ?, ?)", [*last, *scores])
    return uri
