"""Runs read back from MLflow, from any store or server: which to take, their settings, numbers and loss curves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from foundry import store
from foundry.errors import ConfigError
from foundry.sweep import BEFORE, JOB, NUMBER, read_parent
from foundry.sweep import PARENT as PARENT_FILE
from foundry.tracking import PARENT

if TYPE_CHECKING:
    from mlflow.entities import Run as RunEntity
    from mlflow.tracking import MlflowClient

ID_LENGTH = 32
LEAST_ID = 6
"""Digits of a run's id that must be typed at least."""

_MOST = 1000
"""Jobs of a sweep that are looked at."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as MLflow has it: settings flat, of each metric the last value, seconds from start to end."""

    id: str
    name: str
    status: str
    started_ms: int
    seconds: float | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Found:
    """Runs, what they have in common, and how many there were in all."""

    title: str
    runs: Sequence[TrackedRun]
    total: int


class Runs:
    """The runs of a store; every question goes to MLflow, so a server answers it as a file does.

    Args:
        client: A client of the store.
        experiment: The experiment's id where none is named.
    """

    def __init__(self, client: "MlflowClient", experiment: str) -> None:
        self._client = client
        self._experiment = experiment

    def find(self, what: Sequence[str], query: str, order: Sequence[str], last: int) -> Found:
        """Look runs up.

        Args:
            what: Experiments, sweeps (their runs or folders), runs (ids, their beginnings, or run directories);
                nothing for the experiment that jobs are recorded in. The parents of sweeps are left out.
            query: A filter as MLflow's search has it, or nothing.
            order: As MLflow's search has it.
            last: How many, the newest or the first in order.

        Raises:
            ConfigError: There is no such thing, or MLflow cannot read the query.
        """
        experiments = [found.experiment_id for name in what if (found := self._client.get_experiment_by_name(name))]
        if not what or experiments:
            if len(experiments) < len(what):
                raise ConfigError("compare: an experiment is compared on its own, without runs beside it")
            return self._of_experiments(experiments or [self._experiment], " and ".join(what), query, order, last)
        entities = [self._one(name) for name in what]
        if len(entities) == 1 and NUMBER in entities[0].data.tags:
            return self._of_sweep(entities[0], query, order, last)
        children = [child for entity in entities for child in self._children(entity, query, order)]
        return Found("chosen runs", [_tracked(entity) for entity in children[:last]], len(children))

    def _of_experiments(self, ids: list[str], name: str, query: str, order: Sequence[str], last: int) -> Found:
        plain = f"tags.`{NUMBER}` IS NULL"
        entities = self._search(f"{plain} and {query}" if query else plain, order, last, ids)
        title = f"experiment {name or self._client.get_experiment(ids[0]).name}"
        return Found(title, [_tracked(entity) for entity in entities], len(entities))

    def _of_sweep(self, parent: "RunEntity", query: str, order: Sequence[str], last: int) -> Found:
        children = self._children(parent, query, order)
        title = f"sweep {parent.info.run_name} ({parent.info.run_id[:8]})"
        return Found(title, [_tracked(entity) for entity in children[:last]], len(children))

    def _children(self, entity: "RunEntity", query: str, order: Sequence[str]) -> list["RunEntity"]:
        """A sweep's jobs, those that another sweep had done before among them; of any other run, itself."""
        if NUMBER not in entity.data.tags:
            return [entity]
        own = self._search(f"tags.`{PARENT}` = '{entity.info.run_id}'", [], _MOST)
        counted = {*_last_attempts(own), *json.loads(entity.data.tags.get(BEFORE, "[]"))}
        ids = ", ".join(f"'{run_id}'" for run_id in sorted(counted))
        these = f"attributes.run_id IN ({ids})"
        return self._search(f"{these} and {query}" if query else these, order, _MOST) if counted else []

    def _one(self, name: str) -> "RunEntity":
        """The run that a person means by an id, the beginning of one, or a directory."""
        folder = Path(name)
        if (folder / PARENT_FILE).is_file():
            name = read_parent(folder).run_id or name
        elif folder.is_dir():
            found = self._search(f"tags.`foundry.run_dir` = '{folder.absolute()}'", [], 1)
            return found[0] if found else self._nothing(name)
        if len(name) < LEAST_ID or not set(name) <= set("0123456789abcdef"):
            return self._nothing(name)
        found = self._search(f"attributes.run_id LIKE '{name}%'", [], 2)
        if len(found) > 1:
            raise ConfigError(f"compare: {name} is the beginning of several runs' ids; type more of it")
        return found[0] if found else self._nothing(name)

    def _nothing(self, name: str) -> Any:
        raise ConfigError(
            f"compare: {name!r} is no experiment, sweep, run or run directory in {store.public(store.uri())}; "
            f"foundry compare without arguments shows what there is"
        )

    def _search(
        self, query: str, order: Sequence[str], last: int, experiments: list[str] | None = None
    ) -> list["RunEntity"]:
        from mlflow.exceptions import MlflowException

        try:
            return list(
                self._client.search_runs(experiments or [self._experiment], query, max_results=last, order_by=[*order])
            )
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise ConfigError(f"compare: {' '.join(str(error).split())}") from error

    def losses(self, run: TrackedRun) -> list[tuple[int, float]]:
        """The loss at each step that was logged; a step that was run again counts as it went last."""
        history = self._client.get_metric_history(run.id, "loss")
        return sorted({metric.step: metric.value for metric in sorted(history, key=lambda one: one.timestamp)}.items())

    def tokens(self, run: TrackedRun) -> Mapping[int, float]:
        """Tokens seen up to each step that was logged."""
        return {
            metric.step: metric.value for metric in self._client.get_metric_history(run.id, "num_input_tokens_seen")
        }

    def verdict(self, run: TrackedRun) -> Mapping[str, Any]:
        """The verdict that was stored with the run, empty where there is none."""
        from mlflow.exceptions import MlflowException

        try:
            with TemporaryDirectory() as folder:
                path = Path(self._client.download_artifacts(run.id, "verdict.json", folder))
                found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (MlflowException, OSError, ValueError):
            return {}
        return found


def _last_attempts(children: Sequence["RunEntity"]) -> Sequence[str]:
    """Of each job its last run: a sweep that is gone on with does those again that failed or were interrupted."""
    aged = sorted(children, key=lambda child: int(child.info.start_time))
    return [*{child.data.tags.get(JOB, child.info.run_id): child.info.run_id for child in aged}.values()]


def _tracked(entity: "RunEntity") -> TrackedRun:
    info, data = entity.info, entity.data
    seconds = (info.end_time - info.start_time) / 1000 if info.end_time else None
    return TrackedRun(
        info.run_id, info.run_name, info.status, info.start_time, seconds, data.params, data.metrics, data.tags
    )
