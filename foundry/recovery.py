"""Runs whose process is gone: known by tags, completed from their journal when the next run starts."""

import json
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from foundry.journal import Point, batches
from foundry.lot import git_commit

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

JOURNAL = "metrics.jsonl"
ENDING = "ending.json"
"""How a run ended, kept in its directory when MLflow could not be told."""

ABRUPT = {"status": "KILLED", "failure": "the process ended without a word"}


def birth_tags(run_dir: Path, tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that a run begins with: the given ones, those that MLflow adds, and by which its process is known."""
    import psutil
    from mlflow.tracking.context.registry import resolve_tags
    from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

    process, commit = psutil.Process(), git_commit()
    ours = {
        "foundry.run_dir": str(run_dir.absolute()),
        "foundry.host": socket.gethostname(),
        "foundry.pid": str(process.pid),
        "foundry.process_started": repr(process.create_time()),
    }
    found: dict[str, str] = resolve_tags({**({MLFLOW_GIT_COMMIT: commit} if commit else {}), **tags, **ours})
    return found


def recover(client: "MlflowClient", experiment: str, tolerant: Callable[[], AbstractContextManager[None]]) -> None:
    """Complete the runs of this machine whose process is gone: replay their journals, record their ends.

    Only what MLflow lacks is sent. Two processes that replay at once do no harm, for it ignores what it has,
    but that takes ten times as long as asking first.

    Args:
        client: A client of the store.
        experiment: The id of the experiment to look through.
        tolerant: Guards each run, so that one that cannot be completed does not stop the others.
    """
    query = f"attributes.status = 'RUNNING' and tags.`foundry.host` = '{socket.gethostname()}'"
    for run in client.search_runs([experiment], query):
        with tolerant():
            run_id, tags = run.info.run_id, run.data.tags
            if _alive(int(tags["foundry.pid"]), float(tags["foundry.process_started"])):
                continue
            if client.get_run(run_id).info.status == "RUNNING":  # it may have ended well since the search
                _complete(client, run_id, Path(tags["foundry.run_dir"]))


def _alive(pid: int, started: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        # The start is computed from the machine's clock, which may have been set since.
        same = abs(process.create_time() - started) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _complete(client: "MlflowClient", run_id: str, run_dir: Path) -> None:
    @cache
    def known(name: str) -> set[tuple[int, int, str]]:
        history = client.get_metric_history(run_id, legal(name))
        return {(metric.timestamp, metric.step, str(metric.value)) for metric in history}

    last = None
    for points, _ in batches(run_dir / JOURNAL):
        missing = [p for p in points if (p.time_ms, p.step, str(p.value)) not in known(p.name)]
        log_points(client, run_id, missing)
        last = points[-1].time_ms
    ending = run_dir / ENDING
    told = json.loads(ending.read_text(encoding="utf-8")) if ending.exists() else ABRUPT
    terminate(client, run_id, told["status"], told["failure"], last)


def log_points(client: "MlflowClient", run_id: str, points: Sequence[Point]) -> None:
    """Send points of a journal to MLflow."""
    from mlflow.entities import Metric

    metrics = [Metric(legal(name), value, time_ms, step) for name, value, time_ms, step in points]
    client.log_batch(run_id, metrics=metrics, synchronous=True)


def terminate(client: "MlflowClient", run_id: str, status: str, failure: str, ms: int | None = None) -> None:
    """End a run with a status and, if something went wrong, with what it was."""
    if failure:
        client.set_tag(run_id, "foundry.failure", failure)
    client.set_terminated(run_id, status, ms)


def legal(name: str) -> str:
    """A name that MLflow takes; one bad name would make it refuse the whole batch."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]
