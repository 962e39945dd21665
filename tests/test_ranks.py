"""Several processes started by torchrun: the numbers of one, and one that reads, writes and speaks."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import foundry
from foundry.compute import Compute
from foundry.errors import HardwareError
from foundry.lot import is_intact
from foundry.method.sft import SFT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "foundry"]
JOB = [
    *("data=files", "data.path=rows.jsonl", "data.eval_fraction=0", "prune=none", "model=tiny"),
    *("examine=none", "publish=none", "compute.device=cpu", "compute.precision=fp32", "compute.backend=peft"),
    *("compute.threads=1", "method.adapter.rank=4", "method.adapter.dropout=0", "method.max_steps=5"),
    *("method.save_steps=3", "method.logging_steps=1", "method.warmup_ratio=0", "method.scheduler=constant"),
]
ONE, TWO = ["compute.batch_size=8"], ["compute.batch_size=2", "compute.grad_accum=2"]
"""Eight rows a step, in one process or in two."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    rows = [
        {
            "prompt": f"Is {number} even{' or is it not' * (number % 3)}?",
            "chosen": "Yes" + ", it is" * (number % 4),
            "rejected": "Certainly not" + " ever" * (number % 5),
        }
        for number in range(48)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def torchrun(folder, *words):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*TORCHRUN, "train", *JOB, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def alone(folder, method, monkeypatch):
    """The same job in one process, done once."""
    runs = folder / "outputs" / f"one-{method}"
    if not runs.exists():
        monkeypatch.chdir(folder)
        foundry.train(foundry.compose([*JOB, *ONE, f"method={method}", f"job_id=one-{method}"]))
    return next(runs.iterdir())


def losses(run_dir):
    with (run_dir / "loss.csv").open() as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}


def weights(run_dir):
    from safetensors.torch import load_file

    return load_file(run_dir / "model" / "adapter_model.safetensors")


def exit_codes(report):
    """The exit code of each process, from torchrun's report."""
    ranks = re.findall(r"rank +: (\d+).*?\n.*?exitcode +: (-?\d+)", report)
    return {int(rank): int(code) for rank, code in ranks}


@pytest.mark.slow
def test_two_processes_with_divided_weights_train_as_one_does(place, monkeypatch):
    """One job after the other in the same processes, and on from a checkpoint."""
    sweep = torchrun(place, "-m", *TWO, "job_id=two", "method=lora,orpo", "compute=fsdp")
    said, errors = sweep.communicate(timeout=500)
    assert sweep.returncode == 0, errors
    (group,) = (place / "multirun" / "two").iterdir()
    assert sorted(path.name for path in group.iterdir() if path.is_dir()) == ["0", "1"], "one directory a job"
    for stage in ("data", "prune", "compute"):
        assert len(re.findall(rf"^{stage} ", said, re.MULTILINE)) == 2, "said once a job"
    assert said.count("8 rows a step (2 × 2 × 2 processes) · 5 steps") == 2
    for number, method in enumerate(["lora", "orpo"]):
        run_dir, expected = group / str(number), alone(place, method, monkeypatch)
        assert losses(run_dir) == pytest.approx(losses(expected), abs=1e-4)
        trained, there = weights(run_dir), weights(expected)
        assert trained.keys() == there.keys()
        assert all((trained[name] - there[name]).abs().max() < 1e-5 for name in there)
        assert (run_dir / "checkpoints" / "checkpoint-3" / "rng_state_1.pth").is_file()
        assert is_intact(run_dir / "checkpoints" / "checkpoint-3")

    resumed = torchrun(place, *TWO, "job_id=resumed", "compute=fsdp", f"resume={cut(group / '0', place)}")
    _, errors = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, errors
    (run_dir,) = (place / "outputs" / "resumed").iterdir()
    whole = losses(group / "0")
    assert losses(run_dir) == pytest.approx({step: whole[step] for step in (4, 5)}, abs=1e-6)


def cut(run_dir, place):
    """The run as it was after three steps."""
    folder = place / "cut"
    shutil.copytree(run_dir / "checkpoints" / "checkpoint-3", folder / "checkpoints" / "checkpoint-3")
    shutil.copy(run_dir / "manifest.yaml", folder)
    return folder


@pytest.mark.slow
def test_data_parallel_steps_are_those_of_one_process_and_its_end_is_that_of_all(place, monkeypatch):
    run = torchrun(place, *TWO, "job_id=killed", "method.max_steps=100000", "method.save_steps=6")
    deadline = time.monotonic() + 200
    while not list((place / "outputs").glob("killed/*/checkpoints/checkpoint-*/intact.json")):
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.05)
    (second,) = (p for p in psutil.Process(run.pid).children() if p.environ().get("RANK") == "1")
    second.send_signal(signal.SIGKILL)
    _, errors = run.communicate(timeout=100)
    assert run.returncode == 1, "torchrun's own, whatever the codes of its processes are"
    assert exit_codes(errors)[1] == -signal.SIGKILL
    lost = "foundry: training: another of the 2 processes has ended" in errors
    assert lost or "foundry: interrupted" in errors, "whichever it noticed first, the end or torchrun's signal"
    assert exit_codes(errors)[0] in {7, 130, -signal.SIGTERM}, "the last: its end was told by torchrun while it ended"
    (run_dir,) = (place / "outputs" / "killed").iterdir()
    assert not (run_dir / "model").exists()
    journal = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    seen = {line["step"]: line["metrics"]["loss"] for line in journal if "loss" in line["metrics"]}
    expected = losses(alone(place, "lora", monkeypatch))
    assert {step: seen[step] for step in expected} == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_failure_keeps_its_exit_code(place):
    run = torchrun(place, *TWO, "job_id=refused", "data.path=nowhere.jsonl")
    said, errors = run.communicate(timeout=100)
    assert exit_codes(errors)[0] == 4
    assert errors.count("foundry: data: ") == 1
    assert "interrupted" not in errors, "the other process was let go"
    assert "prune" not in said


def test_weights_are_divided_among_several_processes_only():
    compute = Compute(device="cpu", fsdp=True, backend="peft")
    with pytest.raises(HardwareError, match=r"torchrun --nproc-per-node N -m foundry.train compute=fsdp"):
        SFT().check(dict, compute, compute.machine())


def test_the_steps_of_several_processes_are_counted(monkeypatch):
    from foundry.method.pace import planned_steps

    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert planned_steps(40, Compute(batch_size=4, grad_accum=2), 2.0, -1) == 4
