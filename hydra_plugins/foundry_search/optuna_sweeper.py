"""A sweeper that searches: Optuna chooses each job's settings by what the jobs before it came to.

Hydra takes sweepers from the package hydra_plugins alone, which is why this one is not in foundry. The released
plug-in of that name is held at Optuna 2; this is Optuna as it is today.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from foundry.config import Settings
from foundry.errors import ConfigError
from foundry.sweep import Optimize

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler


class Search(Settings):
    """How settings are sought.

    Attributes:
        trials: Jobs in all.
        parallel: Jobs that are given to the launcher together.
        sampler: How settings are chosen.
        seed: Of the choosing.
        params: Further settings to search, by key, as on the command line.
    """

    trials: int = Field(20, ge=1)
    parallel: int = Field(1, ge=1)
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = Field(0, ge=0)
    params: dict[str, Any] | None = None


class OptunaSweeper(Sweeper):
    """Ask Optuna for settings, run the jobs, tell it what they came to.

    On the command line `a,b` and `choice(a,b)` are alternatives, `interval(1e-5,1e-2)` is a number between the
    two, `int(interval(4,64))` a whole one, and `tag(log,interval(…))` goes by orders of magnitude. What is sought
    is `optimize` in the config.
    """

    needs: ClassVar = ("optuna", "search")
    settings: ClassVar = Search
    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, **settings: Any) -> None:
        plain = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)
        self.search = Search(**plain)  # type: ignore[arg-type]  # a mapping's container is a mapping

    @staticmethod
    def check(varied: Sequence[str], optimize: Optimize) -> None:
        """See that a search can begin, before anything is recorded of it.

        Args:
            varied: The keys that have several values.
            optimize: What is sought.

        Raises:
            ConfigError: There is nothing to search or to seek.
        """
        if not varied:
            raise ConfigError("hydra/sweeper=optuna: nothing to search; give a setting several values or an interval")
        if not optimize.goals():
            raise ConfigError("optimize.metric: found null; a search needs a metric to go by")

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what the jobs are composed with."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search."""
        import optuna

        search = self.search
        optimize: Any = OmegaConf.to_container(self.config.optimize, resolve=True)
        goals = Optimize(**optimize).goals()
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides(
            [*(f"{key}={value}" for key, value in (search.params or {}).items()), *arguments]
        )
        space = {one.get_key_element(): distribution(one) for one in parsed if one.is_sweep_override()}
        fixed = [str(one.input_line) for one in parsed if not one.is_sweep_override()]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=[way for _, way in goals], sampler=self._sampler())
        for first in range(0, search.trials, search.parallel):
            asked = [study.ask(space) for _ in range(min(search.parallel, search.trials - first))]
            jobs = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in asked]
            self.validate_batch_is_legal(jobs)
            for trial, job in zip(asked, self.launcher.launch(jobs, initial_job_idx=first), strict=True):
                _tell(study, trial, job.return_value)

    def _sampler(self) -> "BaseSampler":
        from optuna.samplers import RandomSampler, TPESampler

        kinds: dict[str, Any] = {"tpe": TPESampler, "random": RandomSampler}
        chosen: BaseSampler = kinds[self.search.sampler](seed=self.search.seed)
        return chosen


def distribution(override: Override) -> "BaseDistribution":
    """What Optuna chooses from, for a setting with several values.

    Raises:
        ConfigError: It is a sweep that cannot be searched.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep = override.value()
    log = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low or 0), float(high or 0), log=log)
    return CategoricalDistribution([*override.sweep_string_iterator()])


def _tell(study: Any, trial: Any, reached: Any) -> None:
    from optuna.trial import TrialState

    values = reached if isinstance(reached, list) else [reached]
    if all(isinstance(value, float) and math.isfinite(value) for value in values):
        study.tell(trial, values)
    else:
        study.tell(trial, state=TrialState.FAIL)
