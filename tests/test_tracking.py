"""The MLflow run: what it holds, and what becomes of it when MLflow, the disk or the process fails."""

import json
import logging
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from processes import FORK

from foundry import journal, recovery, store, tracking
from foundry.errors import DataError, GateError
from foundry.records import BaseModel, Checkpoint, Dataset


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """An MLflow store without runs; making one takes seconds, so it is made once and copied."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    store._import_mlflow()
    store._make(path)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory of its own, and an MLflow that is asked often."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(journal, "INTERVAL", 0.05)
    monkeypatch.setattr(journal, "RETRY", 0.05)
    return tmp_path


@pytest.fixture
def run_dir(home, empty_store):
    """A run directory beside a store that is there already."""
    (home / "outputs").mkdir()
    shutil.copy(empty_store, home / "outputs" / "mlflow.db")
    (home / "run").mkdir()
    return home / "run"


def start(run_dir, settings=None, tags=None):
    return tracking.start(run_dir, settings or {"seed": 1}, "job", tags or {})


def client():
    from mlflow.tracking import MlflowClient

    return MlflowClient(store.uri())


def stored(run):
    return client().get_run(run.id)


def history(run_id, name):
    return [(m.step, m.value, m.timestamp) for m in client().get_metric_history(run_id, name)]


def journalled(run_dir, name):
    points = [p for batch, _ in journal.batches(run_dir / "metrics.jsonl") for p in batch]
    return [(p.step, p.value, p.time_ms) for p in points if p.name == name]


def eventually(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def sql(statement):
    with closing(sqlite3.connect("outputs/mlflow.db", timeout=10)) as database, database:
        database.execute(statement)


def warnings(caplog):
    return [r for r in caplog.records if r.name.startswith("foundry") and r.levelno >= logging.WARNING]


def orphan(run_id):
    """Make a run look like one of an earlier process that had the same pid."""
    client().set_tag(run_id, "foundry.process_started", "1.0")


# What a run holds


def test_a_run_holds_its_params_tags_and_metrics(run_dir):
    settings = {
        "method": {"_target_": "foundry.method.Tuning", "rank": 16, "rate": 2e-4, "dropout": None, "packing": True},
        "recipe": {"adapters": [{"path": "a", "weight": 0.5}], "layers": ["q", "k"], "extra": {}},
        "long": "x" * 10_000,
        "max gain %": 1,
    }
    with start(run_dir, settings, {"sweep": "ranks"}) as run:
        for step in range(3):
            run.metrics({"loss": 3.0 - step, "gain %": step}, step)
        run.tags({"verdict": "passed"})
    data, info = stored(run).data, stored(run).info
    assert data.params.pop("long") == "x" * 5999 + "…"
    assert data.params == {
        "method._target_": "foundry.method.Tuning",
        "method.rank": "16",
        "method.rate": "0.0002",
        "method.dropout": "null",
        "method.packing": "true",
        "recipe.adapters.0.path": "a",
        "recipe.adapters.0.weight": "0.5",
        "recipe.layers": '["q", "k"]',
        "recipe.extra": "{}",
        "max gain _": "1",
    }
    assert {name: data.tags[name] for name in ("sweep", "verdict", "foundry.run_dir", "foundry.host")} == {
        "sweep": "ranks",
        "verdict": "passed",
        "foundry.run_dir": str(run_dir),
        "foundry.host": socket.gethostname(),
    }
    process = psutil.Process(int(data.tags["foundry.pid"]))
    assert process.pid == os.getpid()
    assert float(data.tags["foundry.process_started"]) == pytest.approx(process.create_time())
    assert (info.run_name, info.status) == ("job", "FINISHED")
    assert "foundry.failure" not in data.tags
    assert history(run.id, "loss") == journalled(run_dir, "loss")
    assert [value for _, value, _ in history(run.id, "loss")] == [3.0, 2.0, 1.0]
    assert [value for _, value, _ in history(run.id, "gain _")] == [0.0, 1.0, 2.0]
    assert time.time() * 1000 - history(run.id, "loss")[0][2] < 60_000


def test_more_params_and_metrics_than_fit_one_call(run_dir):
    with start(run_dir, {f"p{i}": i for i in range(250)}) as run:
        run.metrics({f"m{i}": i for i in range(1500)}, 0)
        for step in range(1, 1100):
            run.metrics({"m0": step}, step)
    assert len(stored(run).data.params) == 250
    assert len(stored(run).data.metrics) == 1500
    assert [step for step, _, _ in history(run.id, "m0")] == list(range(1100))


def test_metrics_reach_mlflow_while_the_job_runs(run_dir):
    with start(run_dir) as run:
        run.metrics({"loss": 1.5}, 7)
        eventually(lambda: stored(run).data.metrics.get("loss") == 1.5)
        assert stored(run).info.status == "RUNNING"


def test_both_splits_are_dataset_inputs_with_their_digests(run_dir):
    rows = [{"prompt": [], "completion": []}] * 3
    with start(run_dir) as run:
        run.dataset(Dataset("logic", "instruction", rows, rows[:1], "a" * 64, "b" * 64))
        run.dataset(Dataset("bare", "text", [{"text": "x"}], [], "c" * 64, ""))
    inputs = {(i.dataset.name, i.tags[0].value): i.dataset for i in stored(run).inputs.dataset_inputs}
    assert sorted(inputs) == [("bare", "training"), ("logic", "eval"), ("logic", "training")]
    assert inputs["logic", "training"].digest == "a" * 36
    assert inputs["logic", "eval"].digest == "b" * 36
    assert json.loads(inputs["logic", "training"].profile)["num_rows"] == 3
    assert json.loads(inputs["logic", "eval"].profile)["num_rows"] == 1
    assert json.loads(inputs["logic", "training"].schema)["fields"] == ["completion", "prompt"]
    assert json.loads(inputs["logic", "training"].source)["tags"]["foundry.sha256"] == "a" * 64


def test_artifacts_and_the_model_are_stored_under_outputs(run_dir, home):
    weights = run_dir / "model"
    (weights / "sub").mkdir(parents=True)
    (weights / "sub" / "adapter.safetensors").write_bytes(b"weights")
    base = BaseModel("smollm2", weights, {}, "d" * 64, 135)
    with start(run_dir) as run:
        run.artifact(weights / "sub" / "adapter.safetensors", "extra")
        run.model(Checkpoint(weights, "adapter", base, {}, "e" * 64, "7f3a9c"))
    found = stored(run)
    assert found.info.artifact_uri.startswith((home / "outputs" / "mlartifacts").as_uri())
    artifacts = home / "outputs" / "mlartifacts" / run.id / "artifacts"
    assert (artifacts / "extra" / "adapter.safetensors").read_bytes() == b"weights"
    (output,) = found.outputs.model_outputs
    model = client().get_logged_model(output.model_id)
    assert (model.name, model.status.name, model.source_run_id, model.model_type) == ("job", "READY", run.id, "adapter")
    assert (model.tags["lot"], model.tags["base"]) == ("7f3a9c", "smollm2")
    assert model.params["base_sha256"] == "d" * 64
    files = Path(model.artifact_location.removeprefix("file://"))
    assert (files / "sub" / "adapter.safetensors").read_bytes() == b"weights"


def test_the_commit_of_the_working_directory_is_a_tag(run_dir):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    with start(run_dir) as run:
        pass
    assert stored(run).data.tags["mlflow.source.git.commit"] == head


def test_system_metrics_are_watched_until_the_run_ends(run_dir, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with start(run_dir) as run:
        eventually(lambda: "system/cpu_utilization_percentage" in stored(run).data.metrics)
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"SystemMetricsMonitor", "foundry-flusher", "foundry-end"}


# How a run ends


@pytest.mark.parametrize(
    ("error", "status", "failure"),
    [
        (GateError("logic_score 0.4, required min 0.8"), "FINISHED", None),
        (KeyboardInterrupt(), "KILLED", None),
        (DataError("rows.jsonl:3: not\n  JSON"), "FAILED", "data: rows.jsonl:3: not JSON"),
        (ValueError("x" * 600), "FAILED", "ValueError: " + "x" * 488),
    ],
)
def test_the_status_says_how_the_run_ended(run_dir, error, status, failure):
    def job():
        with start(run_dir) as run:
            ids.append(run)
            run.metrics({"loss": 1.0}, 1)
            raise error

    ids = []
    with pytest.raises(type(error)):
        job()
    assert stored(ids[0]).info.status == status
    assert stored(ids[0]).data.tags.get("foundry.failure") == failure
    assert stored(ids[0]).data.metrics == {"loss": 1.0}


# When MLflow fails


def test_without_a_server_the_job_runs_and_the_journal_is_kept(run_dir, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{store._free_port()}")
    base = BaseModel("smollm2", run_dir, {}, "d" * 64, 135)
    with start(run_dir) as run:
        run.metrics({"loss": 1.0}, 1)
        run.dataset(Dataset("bare", "text", [{"text": "x"}], [], "c" * 64, ""))
        run.tags({"verdict": "passed"})
        run.artifact(run_dir / "metrics.jsonl")
        run.model(Checkpoint(run_dir, "full", base, {}, "e" * 64))
    assert run.id is None
    assert [(step, value) for step, value, _ in journalled(run_dir, "loss")] == [(1, 1.0)]
    (warning,) = warnings(caplog)
    assert "metrics.jsonl" in warning.getMessage()
    assert "hunter2" not in run.store + caplog.text


def test_an_outage_costs_one_warning_and_no_metric(run_dir, caplog):
    with start(run_dir) as run:
        run.metrics({"loss": 1.0}, 1)
        eventually(lambda: stored(run).data.metrics)
        sql("ALTER TABLE metrics RENAME TO away")
        run.metrics({"loss": 2.0}, 2)
        eventually(lambda: warnings(caplog))
        run.artifact(run_dir / "no such file")
        sql("ALTER TABLE away RENAME TO metrics")
        run.metrics({"loss": 3.0}, 3)
        eventually(lambda: stored(run).data.metrics["loss"] == 3.0)
    assert history(run.id, "loss") == journalled(run_dir, "loss")
    assert stored(run).info.status == "FINISHED"
    assert len(warnings(caplog)) == 1


def test_an_end_that_mlflow_missed_is_told_by_the_next_run(run_dir, home, caplog):
    def job():
        with start(run_dir) as run:
            ids.append(run.id)
            sql("ALTER TABLE metrics RENAME TO away")
            run.metrics({"loss": 1.0}, 1)
            raise DataError("rows.jsonl: empty")

    ids = []
    with pytest.raises(DataError):
        job()
    sql("ALTER TABLE away RENAME TO metrics")
    assert client().get_run(ids[0]).info.status == "RUNNING"
    assert len(warnings(caplog)) == 1
    orphan(ids[0])
    with start(home):
        pass
    found = client().get_run(ids[0])
    assert (found.info.status, found.data.tags["foundry.failure"]) == ("FAILED", "data: rows.jsonl: empty")
    assert history(ids[0], "loss") == journalled(run_dir, "loss") != []


def test_a_store_that_hangs_holds_up_the_end_for_a_bounded_time(run_dir, monkeypatch, caplog):
    monkeypatch.setattr(tracking, "END_WAIT", 0.2)
    with closing(sqlite3.connect("outputs/mlflow.db", isolation_level=None)) as database:
        with start(run_dir) as run:
            database.execute("BEGIN EXCLUSIVE")
            run.metrics({"loss": 1.0}, 1)
            begun = time.monotonic()
        assert time.monotonic() - begun < 5
        assert len(warnings(caplog)) == 1
        assert json.loads((run_dir / "ending.json").read_text())["status"] == "FINISHED"
        database.execute("ROLLBACK")
    eventually(lambda: "foundry-end" not in {thread.name for thread in threading.enumerate()})
    assert stored(run).info.status == "FINISHED"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_one_warning(home, caplog):
    (home / "metrics.jsonl").symlink_to("/dev/full")
    run = tracking.Run(home, "job")
    run.metrics({"loss": 1.0}, 1)
    run.metrics({"loss": 1.0}, 2)
    assert len(warnings(caplog)) == 1


# When the process fails

KILLED = """
import time
from pathlib import Path
from foundry import tracking

with tracking.start(Path("run"), {"seed": 1}, "killed", {}) as run:
    print(run.id, flush=True)
    for step in range(1_000_000):
        run.metrics({"loss": step / 7, "rate": float("nan")}, step)
        time.sleep(0.001)
"""


def spawn(code):
    root = str(Path(tracking.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": root}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


def test_a_killed_run_is_completed_from_its_journal(run_dir, home):
    with spawn(KILLED) as child:
        killed = child.stdout.readline().strip()
        eventually(lambda: history(killed, "loss"))
        time.sleep(0.2)
        child.kill()
    before = len(history(killed, "loss"))
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1000000, "time": 17')
    for name in ("next", "after"):
        with start(home / name) as run:
            assert run.id != killed
        found = client().get_run(killed)
        assert found.info.status == "KILLED"
        assert found.data.tags["foundry.failure"] == "the process ended without a word"
        assert found.info.end_time == journalled(run_dir, "loss")[-1][2]
        assert before < len(history(killed, "loss"))
        assert history(killed, "loss") == journalled(run_dir, "loss")
        rates = history(killed, "rate")
        assert len(rates) == len(journalled(run_dir, "rate"))
        assert all(math.isnan(value) for _, value, _ in rates)
        client().update_run(killed, status="RUNNING")  # once more: replaying is idempotent


def test_runs_that_still_go_on_are_left_alone(run_dir, home):
    with start(run_dir) as first:
        with start(home) as second:
            assert stored(first).info.status == "RUNNING"
        assert (stored(first).info.status, stored(second).info.status) == ("RUNNING", "FINISHED")
    client().set_tag(first.id, "foundry.host", "elsewhere")
    client().update_run(first.id, status="RUNNING")
    orphan(first.id)
    with start(home):
        assert stored(first).info.status == "RUNNING"


def test_a_run_that_ends_while_it_is_looked_at_keeps_its_status(run_dir, home, monkeypatch):
    def ends_now(*_):
        client().set_terminated(run.id, "FINISHED")
        return False

    with start(run_dir) as run:
        monkeypatch.setattr(recovery, "_alive", ends_now)
        with start(home):
            pass
        assert stored(run).info.status == "FINISHED"


def test_a_run_that_cannot_be_completed_does_not_stop_the_next(run_dir, home, caplog):
    with start(run_dir) as odd:
        pass
    with start(home / "lost") as lost:
        pass
    for run in (odd, lost):
        client().update_run(run.id, status="RUNNING")
        orphan(run.id)
    client().set_tag(odd.id, "foundry.pid", "not a number")
    with start(home) as run:
        run.metrics({"loss": 1.0}, 1)
    assert (stored(run).info.status, stored(run).data.metrics) == ("FINISHED", {"loss": 1.0})
    assert (stored(odd).info.status, stored(lost).info.status) == ("RUNNING", "KILLED")
    assert len(warnings(caplog)) == 1


def test_a_process_is_told_from_a_zombie_and_from_another_with_its_pid():
    process = psutil.Process()
    assert recovery._alive(process.pid, process.create_time())
    assert not recovery._alive(process.pid, process.create_time() - 60)
    with subprocess.Popen(["true"]) as ended:
        started = psutil.Process(ended.pid).create_time()
        eventually(lambda: psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE)
        assert not recovery._alive(ended.pid, started)
    assert not recovery._alive(ended.pid, started)


# The store


def one_of_many(home, number):
    os.chdir(home)
    (home / str(number)).mkdir()
    with start(home / str(number)) as run:
        for step in range(50):
            run.metrics({"loss": step}, step)


@pytest.mark.slow
def test_nine_processes_start_together_on_no_store(home):
    processes = [FORK.Process(target=one_of_many, args=(home, number)) for number in range(9)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 9
    found = client().search_runs([client().get_experiment_by_name("foundry").experiment_id])
    assert [run.info.status for run in found] == ["FINISHED"] * 9
    assert [len(history(run.info.run_id, "loss")) for run in found] == [50] * 9
    assert not list((home / "outputs").glob(".mlflow-*"))


def test_a_store_whose_making_was_cut_short_is_made_anew(home, empty_store, monkeypatch):
    def cut_short(uri, _):
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half a store")
        raise MemoryError

    from mlflow.store.tracking import sqlalchemy_store

    with monkeypatch.context() as patch:
        patch.setattr(sqlalchemy_store, "SqlAlchemyStore", cut_short)
        with start(home) as run:
            pass
        assert run.id is None
    assert not (home / "outputs" / "mlflow.db").exists()
    monkeypatch.setattr(store, "_make", lambda path: shutil.copy(empty_store, path))
    with start(home) as run:
        pass
    assert stored(run).info.status == "FINISHED"


def test_the_users_store_and_experiment_are_used(run_dir, home, monkeypatch):
    (home / "elsewhere").mkdir()
    shutil.copy("outputs/mlflow.db", "elsewhere/runs.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/runs.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    with start(run_dir) as run:
        pass
    assert run.store == "sqlite:///elsewhere/runs.db"
    experiment = client().get_experiment_by_name("mine")
    assert stored(run).info.experiment_id == experiment.experiment_id
    assert experiment.artifact_location == (home / "elsewhere" / "mlartifacts").as_uri()


def test_importing_the_module_does_not_import_mlflow():
    with spawn("import sys, foundry.tracking; print('mlflow' in sys.modules)") as child:
        assert child.stdout.read().strip() == "False"


@pytest.mark.usefixtures("run_dir")
def test_the_ui_is_served_on_the_store(home, monkeypatch, capsys):
    served = []
    monkeypatch.setattr(os, "execve", lambda *call: served.append(call))
    tracking.serve_ui(None)
    ((_, command, environment),) = served
    port = command[command.index("--port") + 1]
    uri = f"sqlite:///{home}/outputs/mlflow.db"
    assert command[1:4] == ["-m", "mlflow", "server"]
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert environment["MLFLOW_BACKEND_STORE_URI"] == uri
    runs = f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning"
    assert capsys.readouterr().out == f"{runs} shows the runs in {uri}; Ctrl-C ends it\n"
    assert client().get_experiment_by_name("foundry")


@pytest.mark.usefixtures("home")
def test_the_ui_of_a_server_is_the_server(monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter2@mlflow.example.org/x")
    tracking.serve_ui(5000)
    assert capsys.readouterr().out == "the runs are at https://mlflow.example.org/x\n"


# The journal


def test_a_line_is_on_disk_when_append_returns(tmp_path):
    book = journal.Journal(tmp_path / "metrics.jsonl")
    book.append({"loss": 1, "rate": 1e-3}, 10)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert abs(entry.pop("time") - time.time()) < 60
    assert entry == {"step": 10, "metrics": {"loss": 1.0, "rate": 0.001}}


def test_a_torn_line_is_passed_over_and_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "time": 1.0, "metrics": {"a": 1.0}}\n{"step": 2, "ti')
    assert [batch for batch, _ in journal.batches(path)] == [[journal.Point("a", 1.0, 1000, 1)]]
    book = journal.Journal(path)
    book.append({"a": 3.0}, 3)
    book.append({"a": 4.0}, 4)
    assert [p.step for batch, _ in journal.batches(path) for p in batch] == [1, 3, 4]


def test_a_line_that_is_still_being_written_is_read_later(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "time": 1.0, "metrics": {"a": 1.0}}) + "\n" for step in (1, 2)]
    path.write_text(lines[0] + lines[1][:9])
    ((_, offset),) = journal.batches(path)
    path.write_text("".join(lines))
    ((points, _),) = journal.batches(path, offset)
    assert [point.step for point in points] == [2]


def test_a_short_write_does_not_spoil_the_next_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    book = journal.Journal(path)
    book.append({"a": 1.0}, 1)
    whole = book._file

    class Full:
        def write(self, data):
            return whole.write(data[:10])

    book._file = Full()
    book.append({"a": 2.0}, 2)
    book._file = whole
    book.append({"a": 3.0}, 3)
    assert [p.step for batch, _ in journal.batches(path) for p in batch] == [1, 3]


def test_batches_hold_a_thousand_points_and_can_be_taken_up_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert list(journal.batches(path)) == []
    book = journal.Journal(path)
    for step in range(700):
        book.append({"a": 1.0, "b": 2.0, "c": 3.0}, step)
    found = list(journal.batches(path))
    assert [len(points) for points, _ in found] == [999, 999, 102]
    assert list(journal.batches(path, found[0][1])) == found[1:]
    assert list(journal.batches(path, found[-1][1])) == []


def test_an_interruption_waits_for_the_end_of_a_write(home, monkeypatch):
    """A transaction that Ctrl-C cuts in two would leave SQLite locked for the end of the run."""
    steps = []
    monkeypatch.setattr(tracking, "_log_tags", lambda *_: (signal.raise_signal(signal.SIGINT), steps.append("written")))

    def work():
        with start(home / "run") as run:
            steps.append(run.id)
            run.tags({"a": "b"})
            steps.append("went on")

    with pytest.raises(KeyboardInterrupt):
        work()
    run_id, *rest = steps
    assert rest == ["written"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with store.opened(store.uri()) as (client, _):
        assert client.get_run(run_id).info.status == "KILLED"
