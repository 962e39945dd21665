"""What a sweep costs beside its training: nine jobs of the tiny model, three methods with three seeds, as one command.

Ours is the wall time of the whole `foundry train -m …`: imports, the store, rows, models, training, examinations and
the comparison at the end. The peer is the sum of the nine training times, as each job measured its own.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from foundry import store

ROUNDS = 3
STEPS = 300
TINY = [
    *("model=tiny", "data.size=2048", "data.eval_size=24", "prune=exact", "publish=none"),
    *("examine.metrics.logic_score.max_new_tokens=2", "examine.gates.logic_score.min_gain=null"),
]
SWEPT = ["method=lora,dora,full", "compute.seed=0,1,2"]


def run():
    """Seconds of a sweep, and of the training in it."""
    rounds = [sweep() for _ in range(ROUNDS)]
    ours, peer = (median(taken) for taken in zip(*rounds, strict=True))
    what = f"9 jobs of the tiny model, {STEPS} steps each: the whole command; the sum of their training times"
    return {"name": "sweep", "rows": [{"what": what, "ours": ours, "peer": peer, "unit": "s"}]}


def sweep():
    """Run it once, in a folder and a store of its own; its seconds, and those of its training."""
    with tempfile.TemporaryDirectory() as place:
        uri = f"sqlite:///{place}/mlflow.db"
        command = [sys.executable, "-m", "foundry", "train", "-m", *TINY, f"method.max_steps={STEPS}", *SWEPT]
        begun = time.perf_counter()
        subprocess.run(
            command, cwd=place, env=os.environ | {"MLFLOW_TRACKING_URI": uri}, check=True, stdout=subprocess.DEVNULL
        )
        taken = time.perf_counter() - begun
        with store.opened(uri) as (client, experiment):
            runs = client.search_runs([experiment])
        trained = [run.data.metrics["train_seconds"] for run in runs if "train_seconds" in run.data.metrics]
        assert len(trained) == len(list(Path(place).glob("multirun/train/*/*/model"))) == 9
    return taken, sum(trained)


if __name__ == "__main__":
    for row in run()["rows"]:
        print(row)
