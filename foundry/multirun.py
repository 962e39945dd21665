"""Sweeps at work: the parent run around them, and jobs that go on when one fails."""

import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundry import console, store, tracking
from foundry.errors import EXIT_BUG, FoundryError, GateError, HardwareError
from foundry.hardware import give_back
from foundry.lot import digest
from foundry.outcome import history
from foundry.replay import Manifest
from foundry.run import write_atomic
from foundry.sweep import (
    BEFORE,
    JOB,
    NUMBER,
    Member,
    Optimize,
    Parent,
    Sweep,
    identity,
    members,
    name_of,
    read_member,
    read_parent,
    short,
    write_member,
    write_parent,
)

_UNMET = GateError.exit_code
_LAUNCHERS = ("concurrent", "joblib", "submitit")
"""Where launchers raise from what is wrong with their workers or their cluster."""


class SweepError(FoundryError):
    """Jobs of a sweep failed; it has the exit code of the first that did."""

    kind = "sweep"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # of this one failure


@contextmanager
def parent(
    folder: Path,
    entry: str,
    job_id: str,
    overrides: Sequence[str],
    varied: Sequence[str],
    sweep: Sweep,
    optimize: Optimize,
) -> Iterator[None]:
    """Record a sweep as an MLflow run, the parent of its jobs' runs, and tell at the end what came of them.

    Args:
        folder: The sweep's folder.
        entry: Whose jobs they are.
        job_id: Their name.
        overrides: As typed.
        varied: The keys that have several values.
        sweep: Whether to go on with the run of the same sweep that was interrupted or had failures.
        optimize: What the jobs are ranked by.

    Raises:
        SweepError: Jobs failed.
        GateError: All jobs ended, but some did not meet their gates.
    """
    settings = {"job_id": job_id, "sweep": dict(override.partition("=")[::2] for override in overrides)}
    number = digest([entry, job_id, [override for override in overrides if not override.startswith("sweep.")]])
    query = f"tags.`{NUMBER}` = '{number}' and attributes.status != 'FINISHED'"
    before = tracking.newest(query) if sweep.skip_done else None
    name = f"{job_id}: {' × '.join(map(short, varied)) or 'sweep'}"
    with tracking.start(folder, settings, name, {NUMBER: number}, before and before.info.run_id) as run:
        write_parent(folder, Parent(run.id, overrides))
        with _launched() as lost:
            yield
        told = members(folder)
        run.tags({BEFORE: json.dumps([member.done for member in told if member.done])})
        with run.tolerant():
            _rank(run, folder, optimize, len(told))
        _judge(told, *lost)


@contextmanager
def _launched() -> Iterator[list[Exception]]:
    """Catch what a launcher gives up with, such as a worker that was killed; jobs let nothing through to it."""
    lost: list[Exception] = []
    try:
        yield lost
    except FoundryError:
        raise
    except Exception as error:
        *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
        if innermost.f_globals.get("__name__", "").partition(".")[0] not in _LAUNCHERS:
            raise
        lost.append(error)


def _rank(run: tracking.Run, folder: Path, optimize: Optimize, jobs: int) -> None:
    """Show the jobs, the best first, and store the comparison with the parent."""
    from foundry.compare import printed, show
    from foundry.comparison import compare
    from foundry.overview import page, pareto
    from foundry.runs import Runs

    if run.id is None:
        return
    goals = optimize.goals()
    with store.opened(store.uri()) as (client, experiment):
        runs = Runs(client, experiment)
        order = [f"metrics.`{name}` {'DESC' if way == 'maximize' else 'ASC'}" for name, way in goals]
        found = runs.find([run.id], "", order, jobs)
    table = compare(found.title, found.runs)
    ranked = [one for one in table.runs if all(name in one.metrics for name, _ in goals)]
    signs = [1 if way == "maximize" else -1 for _, way in goals]
    front = pareto([[sign * one.metrics[name] for sign, (name, _) in zip(signs, goals, strict=True)] for one in ranked])
    if goals:
        run.tags({"foundry.best": ", ".join(ranked[at].name for at in sorted(front))})
    for name, text in (("compare.html", page(table, runs)), ("compare.json", printed(table, "json"))):
        write_atomic(folder / name, text)
        run.artifact(folder / name)
    show(table)
    console.stage("", f"{console.near((folder / 'compare.html').absolute())} has loss curves and answers")


def _judge(told: Sequence[Member], lost: Exception | None = None) -> None:
    """Raise what a sweep with these jobs ends with.

    Args:
        told: The jobs that have begun.
        lost: What the launcher gave up with, if it did.

    Raises:
        HardwareError: The launcher gave up.
        SweepError: Some failed.
        GateError: Some did not meet their gates.
    """
    if lost is not None:
        begun = f"{len([member for member in told if member.code is not None])} jobs had ended"
        line = f"the launcher gave up, {begun}: {' '.join(str(lost).split()):.200}"
        raise HardwareError(f"{line}; the same command with sweep.skip_done=true does the others") from lost
    failed = [member for member in told if member.code not in {0, _UNMET}]
    unmet = [member for member in told if member.code == _UNMET]
    parts = [f"{len(told)} jobs", f"{len(failed)} failed", f"{len(unmet)} did not meet their gates"]
    line = ", ".join(part for part in parts if not part.startswith("0 "))
    if failed:
        first = failed[0]
        raise SweepError(f"{line}; the first to fail: {first.name}: {first.line}", first.code or EXIT_BUG)
    if unmet:
        raise GateError(f"{line}; of these nothing was published")
    console.stage("sweep", f"{line}, all done")


def job(
    manifest: Manifest, run_dir: Path, folder: Path, overrides: Sequence[str], work: Callable[[Any, Path], Any]
) -> Any:
    """Do one job of a sweep; a failure is said and noted, so that the next job goes on.

    Args:
        manifest: The typed job.
        run_dir: Its run directory.
        folder: The sweep's folder.
        overrides: The job's own.
        work: Does the job.

    Returns:
        What the job came to by the metrics of `optimize`, for a sweeper that searches.
    """
    sweep = read_parent(folder)
    member = Member(name_of(overrides, sweep.overrides), sweep.run_id)
    console.stage("sweep", f"{run_dir.name}: {member.name}")
    done = tracking.newest(_finished(manifest)) if manifest.sweep.skip_done else None
    if done is not None:
        code = _UNMET if done.data.tags.get("verdict") == "failed" else 0
        write_member(run_dir, replace(member, done=done.info.run_id, code=code))
        console.stage("", f"done already, as run {done.info.run_name} ({done.info.run_id[:8]})")
        return manifest.optimize.reached(done.data.metrics)
    write_member(run_dir, member)
    code, line = _attempt(lambda: work(manifest, run_dir))
    write_member(run_dir, replace(member, code=code, line=line))
    give_back()  # the model of this job, before the next one loads its own
    return manifest.optimize.reached({name: value for at in history(run_dir) for name, value in at["metrics"].items()})


def ended(run_dir: Path, folder: Path, overrides: Sequence[str], why: str = "") -> None:
    """Say how a job ended that was done in another process, which may have been lost.

    Args:
        run_dir: Its run directory.
        folder: The sweep's folder.
        overrides: The job's own.
        why: Why its process was lost, empty if it was not; that is noted as its failure.
    """
    sweep = read_parent(folder)
    member = read_member(run_dir) or Member(name_of(overrides, sweep.overrides), sweep.run_id)
    if why:
        member = replace(member, code=HardwareError.exit_code, line=f"{HardwareError.kind}: {why}")
        write_member(run_dir, member)
    if member.line:
        print(f"foundry: {member.name}: {member.line}", file=sys.stderr)  # noqa: T201
    else:
        console.stage("sweep", f"{run_dir.name}: {member.name} · {'done before' if member.done else 'done'}")


def _finished(manifest: Manifest) -> str:
    return f"tags.`{JOB}` = '{identity(manifest.record())}' and attributes.status = 'FINISHED'"


def _attempt(work: Callable[[], Any]) -> tuple[int, str]:
    """Do some work; its exit code, and what went wrong in a line."""
    try:
        work()
    except FoundryError as error:
        line = f"{error.kind}: {' '.join(str(error).split())}"
        print(f"foundry: {line}", file=sys.stderr)  # noqa: T201
        return error.exit_code, line
    except Exception as error:  # noqa: BLE001  # a bug in one job must not cost the others
        traceback.print_exc()
        return EXIT_BUG, " ".join(f"{type(error).__name__}: {error}".split())
    return 0, ""
