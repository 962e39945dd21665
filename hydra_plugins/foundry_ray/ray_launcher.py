"""A launcher that hands the jobs of a sweep to Ray, on this machine or on a cluster.

Hydra takes launchers from the package hydra_plugins alone, which is why this one is not in foundry. The released
plug-in of that name is held at cloudpickle 2 and brings AWS along; with it a worker that dies ends the whole sweep.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from pydantic import Field

from foundry.config import Settings
from foundry.errors import HardwareError

_CARRIED = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")
"""Variables that jobs on other machines need in order to be recorded where the sweep is."""


class Tasks(Settings):
    """Where Ray is, and what a job takes of it.

    Attributes:
        address: The cluster's head, such as `ray://host:10001` or `auto`; None starts Ray on this machine.
        cpus: Cores of a job, which computes with as many threads; so many jobs run at once as there are cores for.
        gpus: GPUs of a job; two jobs may share one at 0.5.
    """

    address: str | None = Field(None, min_length=1)
    cpus: int = Field(1, ge=1)
    gpus: float = Field(0, ge=0)


class RayLauncher(Launcher):
    """Runs every job as a task of Ray; one whose worker dies counts as failed, and the others go on."""

    needs: ClassVar = ("ray", "ray")
    settings: ClassVar = Tasks

    def __init__(self, **settings: Any) -> None:
        self.tasks = Tasks(**settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what the jobs are composed with."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, as many at once as there is room for.

        Raises:
            HardwareError: There is no such cluster, or no machine of it has what a job takes.
        """
        import ray

        setup_globals()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        logging.getLogger("ray").setLevel(logging.ERROR)
        ours = not ray.is_initialized()
        try:
            if ours:
                self._start()
            self._refuse_what_is_too_much(ray.nodes())
            return self._results([*enumerate(job_overrides, initial_job_idx)])
        except ray.exceptions.RayError as error:
            raise HardwareError(f"hydra/launcher=ray: {_said(error)}") from error
        finally:
            if ours:
                ray.shutdown()

    def _start(self) -> None:
        """Start Ray here, or join the cluster; what jobs print stays in their logs, which only a rehearsal has not.

        Raises:
            HardwareError: It does not start, or there is no such cluster.
        """
        import ray

        aloud = bool(self._config.dry_run)
        try:
            ray.init(self.tasks.address, include_dashboard=False, log_to_driver=aloud, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises a bare one
            raise HardwareError(f"hydra/launcher=ray: Ray does not start: {_said(error)}") from error

    def _refuse_what_is_too_much(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """See that some machine can take a job, for Ray would wait for one without end."""
        wanted = {"CPU": self.tasks.cpus, "GPU": self.tasks.gpus}
        have = [node["Resources"] for node in nodes if node["Alive"]]
        if not any(all(node.get(kind, 0) >= count for kind, count in wanted.items()) for node in have):
            most = max((node.get("CPU", 0), node.get("GPU", 0)) for node in have)
            raise HardwareError(
                f"hydra.launcher: cpus={self.tasks.cpus} gpus={self.tasks.gpus:g} a job, but no machine of the cluster "
                f"has that (the largest has {most[0]:g} cores and {most[1]:g} GPUs); expected less"
            )

    def _results(self, jobs: Sequence[tuple[int, Sequence[str]]]) -> list[JobReturn]:
        """Start every job, tell how each ends as it ends, and return what they came to in their order."""
        import ray

        from foundry import multirun

        room = {"num_cpus": self.tasks.cpus, "num_gpus": self.tasks.gpus, "max_retries": 0}
        task = ray.remote(**room)(_job)
        common = [ray.put(part) for part in (self._context, self._task, Singleton.get_state())]
        variables = {name: os.environ[name] for name in _CARRIED if name in os.environ}
        going = {}
        for number, overrides in jobs:
            config = self._composed(number, overrides)
            run_dir = Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir
            going[task.remote(config, *common, str(Path.cwd()), variables)] = (number, overrides, run_dir)
        results: dict[int, JobReturn] = {}
        while going:
            (over,), _ = ray.wait([*going])
            number, overrides, run_dir = going.pop(over)
            results[number], why = _fetched(over)
            if not self._config.dry_run:
                multirun.ended(run_dir, Path(self._config.hydra.sweep.dir), overrides, why)
        return [results[number] for number, _ in jobs]

    def _composed(self, number: int, overrides: Sequence[str]) -> DictConfig:
        """The config of a job, which knows its number."""
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = f"{config.hydra.job.name}_{number}", number
        HydraConfig.instance().set_config(config)
        return config


def _fetched(over: Any) -> tuple[JobReturn, str]:
    """What a job came to, or why its worker was lost."""
    import ray

    try:
        return ray.get(over), ""
    except ray.exceptions.RayError as error:
        lost = JobReturn(status=JobStatus.COMPLETED)
        lost.return_value = float("nan")
        return lost, f"its worker was lost: {_said(error)}"


def _said(error: BaseException) -> str:
    return f"{' '.join(str(error).split()) or type(error).__name__:.300}"


def _job(
    config: DictConfig,
    context: HydraContext,
    task: TaskFunction,
    state: Mapping[Any, Any],
    folder: str,
    variables: Mapping[str, str],
) -> JobReturn:
    """On a worker: do one job from the folder that the sweep was started in."""
    os.chdir(folder)
    os.environ.update(variables)
    setup_globals()
    Singleton.set_state(state)
    return run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
