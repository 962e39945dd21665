"""The MLflow store: where it is, and how it is made and opened by many processes at once."""

import logging
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from foundry.run import sync

if TYPE_CHECKING:
    from sqlite3 import Connection

    from filelock import FileLock
    from mlflow.tracking import MlflowClient

LOCK_WAIT = 120.0
"""Seconds to wait while another process makes the store or completes killed runs."""

MLFLOW_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # with MLflow's own seven a job waits for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""For MLflow's environment variables that the user has not set."""


def uri() -> str:
    """The tracking URI: `MLFLOW_TRACKING_URI`, else a SQLite file in outputs/ of the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _sqlite_uri(Path("outputs/mlflow.db"))


def _sqlite_uri(path: Path) -> str:
    return f"sqlite:///{path.absolute().as_posix()}"


def public(text: str) -> str:
    """The text with the credentials taken out of its URLs."""
    return re.sub(r"(?<=://)[^/\s]+@", "", text)


@contextmanager
def opened(uri: str) -> Iterator["tuple[MlflowClient, str]"]:
    """Open the store, making it and the experiment if need be, and yield a client and the experiment's id.

    The experiment is `MLFLOW_EXPERIMENT_NAME`, else "foundry". While the block lasts no other process opens
    the same SQLite file: two that made its tables at once would break it.

    Raises:
        MlflowException: The store cannot be reached, or is of another version of MLflow.
        OSError: The SQLite file cannot be made.
        filelock.Timeout: Another process has kept the lock for LOCK_WAIT seconds.
    """
    _import_mlflow()
    path = _sqlite_path(uri)
    with _lock(path) if path else nullcontext():
        if path and not path.exists():
            _make(path)
        yield _connect(uri, (path.parent / "mlartifacts").absolute().as_uri() if path else None)


def absent(uri: str) -> bool:
    """Whether the store is a SQLite file that is not there yet."""
    path = _sqlite_path(uri)
    return path is not None and not path.exists()


@contextmanager
def undivided() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of a write to SQLite: a transaction cut in two would leave it locked."""
    if threading.current_thread() is not threading.main_thread() or _sqlite_path(uri()) is None:
        yield
        return
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


def _sqlite_path(uri: str) -> Path | None:
    found = re.match(r"sqlite(?:\+\w+)?:///(?!:memory:)([^?]+)", uri)
    return Path(found[1]) if found else None


def _lock(path: Path) -> "FileLock":
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock", timeout=LOCK_WAIT)


def _make(path: Path) -> None:
    """Make a SQLite store; it gets its name when it is complete, for MLflow cannot mend an incomplete one."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as scratch, _unsynced():
        new = Path(scratch) / path.name
        SqlAlchemyStore(_sqlite_uri(new), (path.parent / "mlartifacts").absolute().as_uri()).engine.dispose()
        sync(Path(scratch))
        new.replace(path)


@contextmanager
def _unsynced() -> Iterator[None]:
    """Let SQLite leave it to us to bring what it writes to the disk, which it else does after each of many changes."""
    from sqlalchemy import Engine, event

    def relax(connection: "Connection", _record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)


def _connect(uri: str, artifacts: str | None) -> "tuple[MlflowClient, str]":
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "foundry"
    if client.get_experiment_by_name(name) is None:
        try:
            client.create_experiment(name, artifact_location=artifacts)
        except MlflowException as error:  # on a server, another machine may have been faster
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    return client, client.get_experiment_by_name(name).experiment_id


def _import_mlflow() -> None:
    """Import MLflow with our defaults, and keep its chatter off the console."""
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401  # it sets the levels of its loggers when it is imported

    for name, level in (("mlflow", "WARNING"), ("mlflow.system_metrics", "CRITICAL"), ("alembic", "WARNING")):
        logging.getLogger(name).setLevel(level)
    logging.getLogger("urllib3.connectionpool").addFilter(_not_about_mlflow)


def _not_about_mlflow(record: logging.LogRecord) -> bool:
    """Pass what is not a retry of a request to MLflow: those failures get one warning of ours."""
    return "/mlflow/" not in record.getMessage()


def serve_ui(port: int | None = None) -> None:
    """Open the MLflow UI on the store, on 127.0.0.1, until it is interrupted.

    Args:
        port: The port to listen on; a free one by default.
    """
    where = uri()
    if where.startswith(("http://", "https://")):
        print(f"the runs are at {public(where)}")  # noqa: T201
        return
    with opened(where) as (_, experiment):
        port = port or _free_port()
    runs = f"/#/experiments/{experiment}/runs?workflowType=machine_learning"  # without what is for prompts and agents
    print(f"http://127.0.0.1:{port}{runs} shows the runs in {public(where)}; Ctrl-C ends it", flush=True)  # noqa: T201
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    ours = {"MLFLOW_BACKEND_STORE_URI": where, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    os.execve(sys.executable, [*command, "--port", str(port)], os.environ | ours)  # noqa: S606  # signals reach it


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
