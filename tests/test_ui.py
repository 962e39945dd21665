"""MLflow servers as people run them: with a password, and the one that `foundry ui` starts."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from mlflow import MlflowClient
from test_lifecycle import OPEN, foundry

from foundry import store

pytestmark = pytest.mark.slow
SWEPT = [*OPEN, "examine=none", "publish=none", "prune=none", "method.max_steps=2", "compute.seed=0,1"]
SWEPT = [word for word in SWEPT if not word.startswith("examine.")]


@contextmanager
def serving(command, folder, variables):
    """Run a server until the `with` block ends; yields the process."""
    environment = os.environ | variables
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def answers(url):
    """The status of a page, once there is one."""
    for _ in range(600):
        try:
            return urllib.request.urlopen(url, timeout=30).status  # noqa: S310
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.2)
    return None


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A server that asks for a name and a password, in the variables that MLflow has for them."""
    url = f"http://127.0.0.1:{store._free_port()}"
    words = ["--app-name", "basic-auth", "--host", "127.0.0.1", "--port", url.rpartition(":")[2], "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path / "a")]
    variables = {"MLFLOW_AUTH_ADMIN_PASSWORD": "correct horse battery", "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key"}
    for name, value in (("URI", url), ("USERNAME", "admin"), ("PASSWORD", "correct horse battery")):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    with serving([sys.executable, "-m", "mlflow", "server", *words], tmp_path, variables):
        assert answers(f"{url}/api/2.0/mlflow/experiments/search?max_results=1") == 401, "it lets nobody in"
        yield url


def test_a_server_with_a_password_serves_sweep_and_comparison(tmp_path, locked, monkeypatch):
    done = foundry(tmp_path, "train", "-m", *SWEPT)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(locked)
    found = client.search_runs([client.get_experiment_by_name("foundry").experiment_id])
    assert sorted(run.info.run_name for run in found) == ["seed=0", "seed=1", "train: seed"]
    (parent,) = [run.info.run_id for run in found if run.info.run_name == "train: seed"]
    assert "compare.html" in {artifact.path for artifact in client.list_artifacts(parent)}
    assert foundry(tmp_path, "compare", parent, "--html", "page.html").returncode == 0
    assert (tmp_path / "page.html").read_text().count("<polyline") == 4, "two runs over steps and over tokens"
    assert not (tmp_path / "outputs" / "mlflow.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    refused = foundry(tmp_path, "compare")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "MLFLOW_TRACKING_PASSWORD" in refused.stderr


def test_the_ui_opens_on_the_store_and_on_loopback_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with serving([sys.executable, "-m", "foundry", "ui"], tmp_path, {}) as process:
        line = process.stdout.readline()
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+", line)
        assert line.split(" ", 1)[1].startswith(f"shows the runs in sqlite:///{tmp_path}/outputs/mlflow.db")
        assert answers(url) == 200
