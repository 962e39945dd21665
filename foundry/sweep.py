"""What a sweep is after, what its jobs are called, and the files by which parent and jobs know of each other."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from hydra.core.override_parser.overrides_parser import OverridesParser
from pydantic import field_validator, model_validator

from foundry.config import Settings
from foundry.lot import digest
from foundry.run import write_json

PARENT = "sweep.json"
"""In a sweep's folder: the parent's MLflow run and the overrides as they were typed."""

MEMBER = "job.json"
"""In the run directory of a sweep's job: its name, its parent, and how it ended."""

NUMBER = "foundry.sweep"
"""The tag of a sweep's run: the digest of its overrides, by which an interrupted one is found again."""

BEFORE = "foundry.sweep.done"
"""The tag of a sweep's run that lists the runs of other sweeps that had done some of its jobs."""

JOB = "foundry.manifest"
"""The tag of a job's run by which equal jobs are known: the digest of its settings."""

PASSING = ("dry_run", "manifest", "optimize", "resume", "sweep")
"""Settings that say how a job is run, not what it is."""

Direction = Literal["maximize", "minimize"]

_SHORT = {
    "compute.seed": "seed",
    "method.adapter.alpha": "alpha",
    "method.adapter.rank": "r",
    "method.learning_rate": "lr",
}


class Sweep(Settings):
    """How the jobs of a sweep are run.

    Attributes:
        skip_done: Leave out jobs that have been done before, and go on with the sweep that was interrupted.
    """

    skip_done: bool = False


class Optimize(Settings):
    """What a sweep is ranked by and what a searching sweeper tries to reach.

    Attributes:
        metric: A metric as MLflow has it, or several; None where there is nothing to rank by.
        direction: Whether more or less of it is better; one for each metric.
    """

    metric: str | tuple[str, ...] | None = None
    direction: Direction | tuple[Direction, ...] = "maximize"

    @field_validator("metric", "direction", mode="before")
    @classmethod
    def _lists_too(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        metrics, directions = _several(self.metric), _several(self.direction)
        if isinstance(self.direction, tuple) and len(metrics) != len(directions):
            raise ValueError(f"{len(directions)} directions for {len(metrics)} metrics; give one for each")
        return self

    def goals(self) -> list[tuple[str, Direction]]:
        """Each metric with its direction."""
        metrics: tuple[str, ...] = _several(self.metric)
        directions = _several(self.direction) * (1 if isinstance(self.direction, tuple) else len(metrics))
        return list(zip(metrics, directions, strict=True))

    def reached(self, values: Mapping[str, float]) -> float | list[float]:
        """What a job came to, as sweepers take it: a number, or one a metric; NaN for what was not measured."""
        found = [float(values.get(name, "nan")) for name, _ in self.goals()]
        return found[0] if len(found) == 1 else found


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


@dataclass(frozen=True)
class Parent:
    """A sweep as its jobs see it.

    Attributes:
        run_id: The MLflow run, None if MLflow could not be reached.
        overrides: As typed, those with several values among them.
    """

    run_id: str | None
    overrides: Sequence[str]


@dataclass(frozen=True)
class Member:
    """A job of a sweep.

    Attributes:
        name: What differs, as in `dora r=16`.
        parent: The sweep's MLflow run.
        done: The MLflow run that had done this job before, which was therefore left out.
        code: Its exit code once it has ended.
        line: What went wrong, in a line.
    """

    name: str
    parent: str | None
    done: str | None = None
    code: int | None = None
    line: str = ""


def write_parent(folder: Path, parent: Parent) -> None:
    """Leave word for the jobs; launchers start them in other processes and on other machines."""
    write_json(folder / PARENT, asdict(parent))


def read_parent(folder: Path) -> Parent:
    """What a sweep has left for its jobs; an unknown parent where there is nothing."""
    path = folder / PARENT
    return Parent(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else Parent(None, ())


def write_member(run_dir: Path, member: Member) -> None:
    """Note whose job this is and how it ended."""
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / MEMBER, asdict(member))


def read_member(run_dir: Path) -> Member | None:
    """The job of a sweep that this is the directory of, None if it is no sweep's."""
    path = run_dir / MEMBER
    return Member(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def members(folder: Path) -> list[Member]:
    """Every job that a sweep has begun."""
    return [found for path in sorted(folder.rglob(MEMBER)) if (found := read_member(path.parent))]


def identity(settings: Mapping[str, Any]) -> str:
    """The digest by which equal jobs are known: of all that a job is, however it was started."""
    return digest({name: value for name, value in settings.items() if name not in PASSING})


def name_of(overrides: Sequence[str], typed: Sequence[str]) -> str:
    """Say what sets a job apart: those of its overrides that were not typed for every job.

    `["method=dora", "method.adapter.rank=16", "data.limit=9"]` of a sweep over the first two is `dora r=16`. Keys are
    compared, for Hydra writes values in its own way (`true` as `True`, `1e-3` as `0.001`).
    """
    parsed = OverridesParser.create().parse_overrides(list(typed))
    shared = {one.get_key_element() for one in parsed if not one.is_sweep_override()}
    own = [(key.lstrip("+"), value) for key, _, value in (one.partition("=") for one in overrides) if key not in shared]
    words = [value if "." not in key and key != "job_id" else f"{short(key)}={value}" for key, value in own]
    return " ".join(words) or "job"


def short(key: str) -> str:
    """What people call a setting: `r` for `method.adapter.rank`, else the last part of its name."""
    return _SHORT.get(key, key.rpartition(".")[2])
