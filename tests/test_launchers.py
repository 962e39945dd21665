"""Jobs of a sweep in processes of their own: on the cores, as Slurm would, on Ray; what is shared, lost or missing."""

import json
import os
import re
import signal
import sys
from collections import Counter

import pytest
from hydra.core.config_store import ConfigStore
from processes import Job
from test_lifecycle import OPEN, client, foundry, runs

from foundry import app
from foundry.sweep import members
from foundry.train import TrainManifest

QUICK = [*OPEN, "publish=none", "prune=exact", "method.max_steps=2"]
RAY = ["hydra/launcher=ray", "hydra.launcher.cpus=1"]
CORES = ["hydra/launcher=cores", "hydra.launcher.n_jobs=2"]


def threads(place):
    """The threads that each job of a sweep computed with, as their lots have it."""
    return [
        json.loads(path.read_text())["contents"]["hardware"]["threads"] for path in sorted(place.glob("*/lot.json"))
    ]


@pytest.fixture
def shared_out(monkeypatch):
    """Workers settle their threads themselves."""
    monkeypatch.delenv("OMP_NUM_THREADS")


@pytest.mark.slow
@pytest.mark.usefixtures("shared_out")
@pytest.mark.parametrize(
    ("launcher", "share"),
    [
        (CORES, max(1, os.cpu_count() // 2)),
        (["hydra/launcher=slurm_local"], None),
        (RAY, 1),
    ],
    ids=["cores", "slurm_local", "ray"],
)
def test_jobs_elsewhere_are_children_of_the_sweep_and_a_failure_is_one_of_them(tmp_path, launcher, share):
    done = foundry(tmp_path, "train", "-m", *launcher, *QUICK, "method=lora,dora", "method.max_length=8,512")
    assert done.returncode == 4, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("foundry: sweep: 4 jobs, 2 failed; the first to fail: lora max_length=8: data: ")
    (place,) = (tmp_path / "multirun" / "train").iterdir()
    assert [(member.name, member.code) for member in members(place)] == [
        ("lora max_length=8", 4), ("lora max_length=512", 0), ("dora max_length=8", 4), ("dora max_length=512", 0),
    ]  # fmt: skip
    found = runs(tmp_path)
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in found if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert Counter(run.info.status for run in children) == {"FAILED": 2, "FINISHED": 2}
    assert len(threads(place)) == 2
    assert share is None or set(threads(place)) == {share}, "workers share the cores"


def swept(folder, monkeypatch, launcher):
    """Sweep three jobs of which the second is killed."""

    def job(cfg):  # a function of a function travels by value: workers need not find this file
        def work(manifest, run_dir):
            if manifest.compute.seed == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            (run_dir / "done").touch()

        return app.one_job(cfg, TrainManifest.from_config, work, work)

    monkeypatch.chdir(folder)
    code = app.main(job, TrainManifest.from_config, "train", ["-m", *launcher, *QUICK, "compute.seed=0,1,2"])
    (place,) = (folder / "multirun" / "train").iterdir()
    return code, {path.parent.name for path in place.glob("*/done")}, {run.info.run_name for run in runs(folder)}


@pytest.mark.slow
def test_on_ray_a_job_whose_worker_is_killed_is_lost_alone(tmp_path, monkeypatch, capsys):
    code, done, names = swept(tmp_path, monkeypatch, RAY)
    assert (code, done) == (3, {"0", "2"})
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("foundry: sweep: 3 jobs, 1 failed; the first to fail: seed=1: hardware: its worker was lost")
    assert names == {"train: seed"}


@pytest.mark.slow
def test_a_launcher_that_gives_up_is_one_line_which_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    code, _, _ = swept(tmp_path, monkeypatch, CORES)
    assert code == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match("foundry: hardware: the launcher gave up, [0-2] jobs had ended: .*terminated", last)
    assert last.endswith("sweep.skip_done=true does the others")
    (parent,) = runs(tmp_path)
    assert parent.info.status == "FAILED"


@pytest.mark.slow
def test_ray_says_when_no_machine_can_take_a_job(tmp_path):
    done = foundry(tmp_path, "train", "-m", *RAY, "hydra.launcher.cpus=1000", *QUICK, "compute.seed=0,1")
    assert done.returncode == 3
    assert "hydra.launcher: cpus=1000 gpus=0 a job, but no machine of the cluster has that" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [
        ("hydra/launcher=cores", "hydra-joblib-launcher", "joblib"),
        ("hydra/launcher=slurm", "hydra-submitit-launcher", "slurm"),
        ("hydra/launcher=slurm_local", "hydra-submitit-launcher", "slurm"),
        ("hydra/launcher=ray", "ray", "ray"),
        ("hydra/sweeper=optuna", "optuna", "search"),
    ],
)
def test_a_plug_in_whose_package_is_not_installed_is_one_line_and_nothing_is_written(
    train, monkeypatch, option, package, extra
):
    train("--cfg", "job")  # Hydra has found its plug-ins
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in ("joblib.yaml", "submitit_slurm.yaml", "submitit_local.yaml"):
        monkeypatch.delitem(launchers, name)
    for name in ("ray", "optuna"):
        monkeypatch.setitem(sys.modules, name, None)
    called = train("-m", option, "compute.seed=0,1")
    assert (called.code, called.written, called.jobs) == (2, [], [])
    (line,) = called.err.splitlines()
    assert line.endswith(f"{package} is not installed; pip install 'model-foundry[{extra}]'")
    assert line.startswith(f"foundry: configuration: {option.partition('=')[0]}")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("hydra.launcher.cpus=0", "hydra.launcher.cpus: found 0, expected 1 or more"),
        ("hydra.launcher.gpus=-1", "hydra.launcher.gpus: found -1, expected 0 or more"),
        ("+hydra.launcher.cores=2", "hydra.launcher.cores: unknown key"),
    ],
)
def test_a_wrong_setting_of_a_launcher_is_told_before_anything_is_written(train, override, said):
    called = train("-m", "hydra/launcher=ray", override, "compute.seed=0,1")
    assert (called.code, called.written) == (2, [])
    assert said in called.err


JOBS = 16


@pytest.mark.slow
def test_jobs_that_start_at_once_where_there_is_no_store_lose_nothing(tmp_path):
    """They are forked from one process that has the libraries, so that all of them reach the store together."""
    words = [*OPEN, "examine=none", "publish=none", "prune=none", "method.max_steps=3", "method.logging_steps=1"]
    words = [word for word in words if not word.startswith("examine.")]
    started = [Job(tmp_path, "train", *words, f"compute.seed={number}") for number in range(JOBS)]
    assert [job.wait(600) for job in started] == [0] * JOBS, [job.err for job in started]
    folders = list((tmp_path / "outputs" / "train").iterdir())
    assert len(folders) == JOBS
    found = {run.data.tags["foundry.run_dir"]: run for run in runs(tmp_path)}
    assert set(found) == {str(folder) for folder in folders}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    for folder in folders:
        journal = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        written = Counter(name for entry in journal for name in entry["metrics"])
        assert written["loss"] == 3
        run_id = found[str(folder)].info.run_id
        stored = {name: len(client(tmp_path).get_metric_history(run_id, name)) for name in written}
        assert stored == written
