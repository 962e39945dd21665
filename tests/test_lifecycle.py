"""The whole job through the command, on the tiny model: files, MLflow, lot, gates, API, sweeps."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from processes import Job

TINY = [
    "model=tiny",
    "data.size=48",
    "data.eval_size=24",
    "method.max_steps=4",
    "method.logging_steps=2",
    "method.adapter.rank=4",
    "examine.metrics.logic_score.max_new_tokens=2",
    "compute.backend=peft",
]
OPEN = [*TINY, "examine.gates.logic_score.min_gain=null"]


def foundry(folder, *words):
    """Run the command in this process, from `folder`: importing torch once serves every test."""
    from foundry.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def process(folder, *words, **variables):
    """Start the command as a process of its own."""
    command = [sys.executable, "-m", "foundry", *words]
    environment = {**os.environ, **variables}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def client(folder):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder}/outputs/mlflow.db")


def runs(folder):
    found = client(folder)
    return found.search_runs([experiment.experiment_id for experiment in found.search_experiments()])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A job that trained, passed and was published, in a folder of its own."""
    folder = tmp_path_factory.mktemp("finished")
    done = foundry(folder, "train", *OPEN, "job_id=demo", "publish.tag=v1")
    assert done.returncode == 0, done.stderr
    (run_dir,) = (folder / "outputs" / "demo").iterdir()
    return folder, run_dir, done


def test_a_run_directory_holds_what_it_promises(finished):
    _, run_dir, _ = finished
    promised = {
        "manifest.yaml", "lot.json", "removed.jsonl", "quarantine.jsonl", "metrics.jsonl", "loss.csv", "mask_audit.txt",
        "checkpoints", "model", "verdict.json", "report.html", "release.json", "foundry.log",
    }  # fmt: skip
    assert {path.name for path in run_dir.iterdir()} == promised
    lines = (run_dir / "loss.csv").read_text().splitlines()
    assert lines[0].startswith("step,")
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "4"]


def test_the_summary_says_what_a_person_wants_to_know(finished):
    _, run_dir, done = finished
    lot = json.loads((run_dir / "lot.json").read_text())["lot"]
    for word in [lot[:12], "logic_score", "passed", "tokens/s", "peak memory", "report", "foundry ui", "v1"]:
        assert word in done.stdout
    assert done.stderr == ""


def test_mlflow_shows_the_run(finished):
    folder, run_dir, _ = finished
    (run,) = runs(folder)
    lot = json.loads((run_dir / "lot.json").read_text())
    assert (run.info.run_name, run.info.status) == ("demo", "FINISHED")
    assert run.data.params["method.adapter.rank"] == "4"
    assert run.data.tags["lot"] == lot["lot"]
    assert run.data.tags["verdict"] == "passed"
    assert run.data.tags["mlflow.note.content"].startswith(f"**passed** · lot `{lot['lot'][:12]}`")
    assert {"loss", "tokens_per_second", "logic_score", "logic_score_baseline"} <= run.data.metrics.keys()
    contexts = {i.tags[0].value: i.dataset.digest for i in run.inputs.dataset_inputs}
    assert contexts.keys() == {"training", "eval"}
    assert lot["contents"]["dataset"]["train"].startswith(contexts["training"])
    found = {artifact.path for artifact in client(folder).list_artifacts(run.info.run_id)}
    assert {"manifest.yaml", "report.html", "verdict.json"} <= found
    (logged,) = client(folder).search_logged_models([run.info.experiment_id])
    assert logged.source_run_id == run.info.run_id
    steps = [metric.step for metric in client(folder).get_metric_history(run.info.run_id, "loss")]
    assert sorted(steps) == [1, 2, 4]


def test_verify_accepts_the_run_and_its_release(finished):
    folder, run_dir, _ = finished
    for place in (run_dir, folder / "outputs" / "registry" / "demo" / "v1"):
        verified = foundry(folder, "verify", str(place))
        assert verified.returncode == 0, verified.stderr
        assert "differs" not in verified.stdout
        assert "base model" in verified.stdout


def test_the_same_command_again_finds_its_tag_taken_only_if_the_lot_differs(finished):
    folder, _, _ = finished
    again = foundry(folder, "train", *OPEN, "job_id=demo", "publish.tag=v1")
    assert again.returncode == 0, again.stderr
    assert "same lot" in again.stdout
    other = foundry(folder, "train", *OPEN, "job_id=demo", "publish.tag=v1", "compute.seed=5")
    assert other.returncode == 6
    assert "publish.tag=v1" in other.stderr
    shelf = folder / "outputs" / "registry" / "demo"
    assert [path.name for path in shelf.iterdir()] == ["v1"]


def test_a_gate_that_is_not_met_publishes_nothing(tmp_path):
    done = foundry(tmp_path, "train", *TINY, "examine.gates.logic_score.min=0.99")
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    assert "logic_score" in line
    assert "at least 99.0 %" in line
    assert not (tmp_path / "outputs" / "registry").exists()
    (run_dir,) = (tmp_path / "outputs" / "train").iterdir()
    assert json.loads((run_dir / "verdict.json").read_text())["passed"] is False
    (run,) = runs(tmp_path)
    assert (run.info.status, run.data.tags["verdict"]) == ("FINISHED", "failed")


def test_the_manifest_of_a_run_replays_it_to_the_same_weights(finished, tmp_path):
    _, run_dir, _ = finished
    done = foundry(tmp_path, "train", f"manifest={run_dir / 'manifest.yaml'}")
    assert done.returncode == 0, done.stderr
    (again,) = (tmp_path / "outputs" / "demo").iterdir()
    name = "model/adapter_model.safetensors"
    assert (again / name).read_bytes() == (run_dir / name).read_bytes()


def test_a_sweep_gives_every_job_its_own_directory_and_run(tmp_path):
    done = foundry(tmp_path, "train", "-m", *OPEN, "method.adapter.rank=2,3", "publish=none")
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun" / "train").iterdir()
    jobs = {p.parent.name: yaml.safe_load(p.read_text()) for p in sweep.glob("*/manifest.yaml")}
    assert {name: settings["method"]["adapter"]["rank"] for name, settings in jobs.items()} == {"0": 2, "1": 3}
    assert sorted(run.data.params.get("method.adapter.rank", "parent") for run in runs(tmp_path)) == [
        "2",
        "3",
        "parent",
    ]


def test_the_api_is_the_same_machinery(tmp_path, monkeypatch):
    import foundry as package

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    manifest = package.compose([*OPEN, "publish.registry=shelf", "publish.tag=api"])
    for _ in range(2):  # importing the modules must not hide the functions of their names
        release = package.train(manifest)
    assert release.uri == str(tmp_path / "shelf" / "train" / "api")
    assert not [finding for finding in package.verify(release.uri) if finding.bad]


def test_a_dry_run_trains_and_writes_nothing(tmp_path):
    done = foundry(tmp_path, "train", *TINY, "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "activations" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_job_is_marked_and_the_same_command_succeeds(tmp_path):
    with Job(tmp_path, "train", *OPEN, "method.max_steps=2000") as job:
        job.until(lambda: list(tmp_path.glob("outputs/train/*/metrics.jsonl")))
        job.send(signal.SIGKILL)
        job.wait()
    assert foundry(tmp_path, "train", *OPEN).returncode == 0
    assert sorted(run.info.status for run in runs(tmp_path)) == ["FINISHED", "KILLED"]
    assert not list(tmp_path.glob("outputs/registry/*/.incoming*"))


@pytest.mark.slow
def test_an_installed_package_finds_its_config_from_an_empty_folder(tmp_path):
    """What lies in the checkout beside the package must lie in the package when it is installed."""
    from foundry.config import CONF

    site = tmp_path / "site" / "foundry"
    shutil.copytree(CONF.parent / "foundry", site, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONF, site / "conf")
    empty = tmp_path / "empty"
    empty.mkdir()
    started = process(empty, "train", *TINY, "dry_run=true", PYTHONPATH=str(tmp_path / "site"))
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 0, errors
