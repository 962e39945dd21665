# ruff: noqa: SLF001  # the peer is what the method builds inside
"""What the runner adds to a step: `method.train` watched and tracked beside the same trainer called directly.

The main job's rows and batches with a loss logged at every step, which is ten times as often as usual; a step in turn
of each in one process. The peer is the trainer that the method builds, without observer, progress and tracking, as a
script would call it. The model is the tiny one, so that what is added can be told from the noise: it does not depend on
the model, and 2 % of a SmolLM2 step are far more.
"""

import os
import tempfile
from pathlib import Path
from statistics import median

STEPS = 60


def run():
    """Rows in CPU seconds a step."""
    import foundry
    from benchmarks.race import race

    fixed = [f"method.max_steps={STEPS}", "method.save_steps=1000", "method.logging_steps=1", "compute.threads=1"]
    job = foundry.compose(["model=tiny", "examine=none", "publish=none", *fixed])
    rows = job.data.load().train
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            _, times = race({"ours": runner(job, rows, Path(place)), "peer": direct(job, rows, Path(place))})
        finally:
            os.chdir(home)
    figures = {who: median(seconds) for who, seconds in times.items()}
    added = median(a - b for a, b in zip(times["ours"], times["peer"], strict=True))
    return {
        "name": "runner (peer: the same trainer called directly)",
        "rows": [
            {"what": "a step of the tiny model", **figures, "unit": "CPU s"},
            {
                "what": "what the runner adds to a step (median of differences)",
                "ours": added,
                "peer": None,
                "unit": "CPU s",
            },
        ],
    }


def stepped(tick):
    from transformers import TrainerCallback

    class Stepped(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):  # noqa: ARG002
            if state.global_step:  # after all that others do at a step's end
                tick()

    return Stepped()


def runner(job, rows, place):
    from unittest.mock import patch

    from foundry import tracking
    from foundry.method import trainer
    from foundry.records import Pruned

    def run(tick):
        run_dir = place / "ours"
        run_dir.mkdir()
        watcher, base = trainer._Watcher, job.model.fetch()

        def watched(trained, observer):
            trained.add_callback(stepped(tick))
            return watcher(trained, observer)

        with tracking.start(run_dir, {}, "bench", {}) as tracked, patch.object(trainer, "_Watcher", watched):
            kept = Pruned(list(rows), (), "", "")
            job.method.train(kept, base, job.compute, job.compute.machine(), run_dir, tracked)

    return run


def direct(job, rows, place):
    from foundry.loading import load_tokenizer
    from foundry.records import Pruned

    def run(tick):
        base, machine = job.model.fetch(), job.compute.machine()
        tokenizer = load_tokenizer(base.path)
        made = job.method._tokenised(Pruned(list(rows), (), "", ""), tokenizer)
        run_dir = place / "peer"
        run_dir.mkdir()
        trainer = job.method._trainer(made, tokenizer, base, job.compute, machine, run_dir, "peft")
        trainer.add_callback(stepped(tick))
        trainer.train()

    return run


if __name__ == "__main__":
    for row in run()["rows"]:
        print(row)
