"""The MLflow run of a job.

Metrics go into a journal in the run directory first and from there to MLflow in the background. Nothing that
MLflow does slows a step or fails a run: its failures become one warning, and the journal stays. A run whose
process was killed is completed from its journal when the next one starts on the same machine.
"""

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry import store, sweep
from foundry.errors import FoundryError, GateError
from foundry.journal import Flusher, Journal
from foundry.records import Checkpoint, Dataset
from foundry.recovery import ENDING, JOURNAL, birth_tags, legal, log_points, recover, terminate
from foundry.run import write_json

if TYPE_CHECKING:
    from mlflow.entities import Run as RunEntity
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
    from mlflow.tracking import MlflowClient

END_WAIT = 30.0
"""Seconds that the end of a run waits for MLflow to take what is left."""

PARENT = "mlflow.parentRunId"
"""The tag that makes a run the child of another."""

serve_ui = store.serve_ui

_logger = logging.getLogger(__name__)


@contextmanager
def start(
    run_dir: Path, settings: Mapping[str, Any], name: str, tags: Mapping[str, str], again: str | None = None
) -> Iterator["Run"]:
    """Record a job as an MLflow run for as long as the `with` block lasts.

    The run ends FINISHED, also when a gate was not met; KILLED when interrupted; FAILED, with the tag
    `foundry.failure`, on any other exception. A sweep's job is a child of the sweep's run.

    Args:
        run_dir: The run directory; the journal is its metrics.jsonl.
        settings: The resolved settings, logged flat as params.
        name: The run's name, unless it is a sweep's job, which is called after what sets it apart.
        tags: Tags to begin with.
        again: An MLflow run to go on with, None for a new one.
    """
    member = sweep.read_member(run_dir)
    run = Run(run_dir, member.name if member else name)
    if member and member.parent:
        tags = {PARENT: member.parent, **tags}
    status, failure = "FINISHED", ""
    try:
        run.open(settings, tags, again)
        yield run
    except GateError:
        raise
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except BaseException as error:
        status, failure = "FAILED", _one_line(error)
        raise
    finally:
        run.close(status, failure)


def _one_line(error: BaseException) -> str:
    kind = error.kind if isinstance(error, FoundryError) else type(error).__name__
    return store.public(" ".join(f"{kind}: {error}".split()))[:500]


class _Tolerance:
    """Turns failures of MLflow into one warning."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._unsaid = threading.Lock()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # MLflow lets errors of its store, of HTTP and of the disk through
            self.warn(error)

    def warn(self, error: Exception) -> None:
        """Say once that something could not be recorded; what follows is for debugging."""
        level = logging.WARNING if self._unsaid.acquire(blocking=False) else logging.DEBUG
        text = "MLflow does not have everything; the job goes on, the metrics that could be written are in %s (%s)"
        _logger.log(level, text, self._journal, _one_line(error))


class Run:
    """A tracked run.

    Attributes:
        id: The MLflow run id; None if MLflow could not be reached when the run began.
        store: The tracking URI to show a person, without credentials.
        tolerant: Guards what may fail without failing the job.
    """

    def __init__(self, run_dir: Path, name: str) -> None:
        self.id: str | None = None
        self.store = store.public(store.uri())
        self._run_dir = run_dir
        self._name = name
        self._journal = Journal(run_dir / JOURNAL)
        self.tolerant = _Tolerance(self._journal.path)
        self._client: MlflowClient | None = None
        self._flusher: Flusher | None = None
        self._monitor: SystemMetricsMonitor | None = None
        self._told = False

    def open(self, settings: Mapping[str, Any], tags: Mapping[str, str], again: str | None = None) -> None:
        """Begin the run in MLflow, or go on with one, after completing those that were killed."""
        with self.tolerant():
            uri = store.uri()
            with store.opened(uri) as (client, experiment):
                recover(client, experiment, self.tolerant)
            tags = birth_tags(self._run_dir, {sweep.JOB: sweep.identity(settings), **tags})
            if again:
                _log_tags(client, again, tags)
                client.update_run(again, "RUNNING")
            run_id: str = again or client.create_run(experiment, run_name=self._name, tags=tags).info.run_id
            self.id, self._client = run_id, client
            self._tell(_log_params, settings)
            send = partial(log_points, client, run_id)
            self._flusher = Flusher(self._journal.path, send, self.tolerant.warn)
            self._flusher.start()
            self._monitor = _watch_system(run_id, uri)

    def _tell(self, action: Callable[..., None], *args: Any) -> None:
        if self.id is not None:
            with self.tolerant(), store.undivided():
                action(self._client, self.id, *args)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record the metrics of a step; costs microseconds, MLflow gets them within about a second."""
        try:
            self._journal.append(values, step)
        except OSError as error:
            self.tolerant.warn(error)

    def dataset(self, dataset: Dataset) -> None:
        """Record both splits as dataset inputs with their digests."""
        self._tell(_log_dataset, dataset)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._tell(_log_tags, values)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file or a folder, under `folder` of the run's artifacts."""
        self._tell(_log_artifact, path, folder)

    def model(self, checkpoint: Checkpoint) -> None:
        """Store the checkpoint's files as a logged model, an output of this run."""
        self._tell(_log_model, self._name, checkpoint)

    def close(self, status: str, failure: str) -> None:
        """End the run once MLflow has every metric; should that fail, `recover` makes up for it later."""
        if self.id is not None:
            args = (self.id, status, failure)
            end = threading.Thread(target=self._end, args=args, name="foundry-end", daemon=True)
            end.start()
            end.join(END_WAIT)
            if not self._told:
                self.tolerant.warn(TimeoutError("it does not answer"))
                with self.tolerant():
                    write_json(self._run_dir / ENDING, {"status": status, "failure": failure})
        self._journal.close()

    def _end(self, run_id: str, status: str, failure: str) -> None:
        with self.tolerant():
            if self._monitor is not None:
                self._monitor.finish()
            if self._flusher is not None and self._flusher.finish():
                terminate(self._client, run_id, status, failure)
                self._told = True


def newest(query: str) -> "RunEntity | None":
    """The newest run that a query of MLflow's finds, or None; also where MLflow cannot be asked."""
    found: list[RunEntity] = []
    with _Tolerance(Path("outputs"))(), store.opened(store.uri()) as (client, experiment):
        found = client.search_runs([experiment], query, max_results=1)
    return found[0] if found else None


def flat(settings: Any, key: str = "") -> dict[str, str]:
    """Flatten nested settings into params: `{"method": {"rank": 8}}` becomes `{"method.rank": "8"}`.

    Lists of mappings are flattened by index; anything else that is not text is written as JSON.
    """
    if isinstance(settings, list) and any(isinstance(item, Mapping) for item in settings):
        settings = dict(enumerate(settings))
    if not isinstance(settings, Mapping) or (key and not settings):
        return {key: settings if isinstance(settings, str) else json.dumps(settings, ensure_ascii=False)}
    found: dict[str, str] = {}
    for name, value in settings.items():
        found |= flat(value, f"{key}.{name}" if key else str(name))
    return found


def _log_params(client: "MlflowClient", run_id: str, settings: Mapping[str, Any]) -> None:
    from mlflow.entities import Param
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    def fit(value: str) -> str:
        return value if len(value) <= MAX_PARAM_VAL_LENGTH else value[: MAX_PARAM_VAL_LENGTH - 1] + "…"

    params = [Param(legal(key), fit(value)) for key, value in flat(settings).items()]
    client.log_batch(run_id, params=params, synchronous=True)


def _log_tags(client: "MlflowClient", run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    tags = [RunTag(key, str(value)) for key, value in values.items()]
    client.log_batch(run_id, tags=tags, synchronous=True)


def _log_artifact(client: "MlflowClient", run_id: str, path: Path, folder: str | None) -> None:
    client.log_artifact(run_id, str(path), folder)


def _log_dataset(client: "MlflowClient", run_id: str, dataset: Dataset) -> None:
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE

    def entry(context: str, rows: Sequence[Any], sha256: str) -> DatasetInput:
        entity = Entity(
            name=dataset.name,
            digest=sha256[:MAX_DATASET_DIGEST_SIZE],
            source_type="code",
            source=json.dumps({"tags": {"foundry.sha256": sha256}}),
            schema=json.dumps({"shape": dataset.shape, "fields": sorted(rows[0])}),
            profile=json.dumps({"num_rows": len(rows), "quarantined": len(dataset.quarantined)}),
        )
        return DatasetInput(entity, [InputTag("mlflow.data.context", context)])

    splits = (("training", dataset.train, dataset.sha256), ("eval", dataset.eval, dataset.eval_sha256))
    client.log_inputs(run_id, [entry(*split) for split in splits if split[1]])


def _log_model(client: "MlflowClient", run_id: str, name: str, checkpoint: Checkpoint) -> None:
    from mlflow.entities import LoggedModelOutput

    model = client.create_logged_model(
        client.get_run(run_id).info.experiment_id,
        name=re.sub(r"[/:.%\"']", "-", name),
        source_run_id=run_id,
        model_type=checkpoint.kind,
        params={"base": checkpoint.base.name, "base_sha256": checkpoint.base.sha256, "kind": checkpoint.kind},
        tags={"lot": checkpoint.lot, "base": checkpoint.base.name, "pruned_sha256": checkpoint.pruned_sha256},
    )
    client.log_model_artifacts(model.model_id, str(checkpoint.path))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])


def _watch_system(run_id: str, uri: str) -> "SystemMetricsMonitor":
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, tracking_uri=uri)
    monitor.start()
    return monitor
