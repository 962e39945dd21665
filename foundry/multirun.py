"""Sweeps at work: the parent run around them, and jobs that go on when one fails."""

import gc
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundry import console, tracking
from foundry.errors import EXIT_BUG, FoundryError, GateError
from foundry.lot import digest
from foundry.outcome import history
from foundry.replay import Manifest
from foundry.sweep import Member, Parent, identity, members, name_of, read_parent, short, write_member, write_parent

NUMBER = "foundry.sweep"
"""The tag of a sweep's run: the digest of its overrides, by which an interrupted one is found again."""

BEFORE = "foundry.sweep.done"
"""The tag of a sweep's run that lists the runs of other sweeps that had done some of its jobs."""

_UNMET = GateError.exit_code


class SweepError(FoundryError):
    """Jobs of a sweep failed; it has the exit code of the first that did."""

    kind = "sweep"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # of this one failure


@contextmanager
def parent(
    folder: Path, entry: str, job_id: str, overrides: Sequence[str], varied: Sequence[str], *, skip_done: bool
) -> Iterator[None]:
    """Record a sweep as an MLflow run, the parent of its jobs' runs, and tell at the end what came of them.

    Args:
        folder: The sweep's folder.
        entry: Whose jobs they are.
        job_id: Their name.
        overrides: As typed.
        varied: The keys that have several values.
        skip_done: Go on with the run of the same sweep that was interrupted or had failures.

    Raises:
        SweepError: Jobs failed.
        GateError: All jobs ended, but some did not meet their gates.
    """
    settings = {"job_id": job_id, "sweep": list(overrides)}
    number = digest({"entry": entry, **settings})
    query = f"tags.`{NUMBER}` = '{number}' and attributes.status != 'FINISHED'"
    before = tracking.newest(query) if skip_done else None
    name = f"{job_id}: {' × '.join(map(short, varied)) or 'sweep'}"
    with tracking.start(folder, settings, name, {NUMBER: number}, before and before.info.run_id) as run:
        write_parent(folder, Parent(run.id, overrides))
        yield
        told = members(folder)
        run.tags({BEFORE: json.dumps([member.done for member in told if member.done])})
        _judge(told)


def _judge(told: Sequence[Member]) -> None:
    """Raise what a sweep with these jobs ends with.

    Raises:
        SweepError: Some failed.
        GateError: Some did not meet their gates.
    """
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
    gc.collect()  # the model of this job, before the next one loads its own
    return manifest.optimize.reached({name: value for at in history(run_dir) for name, value in at["metrics"].items()})


def _finished(manifest: Manifest) -> str:
    return f"tags.`foundry.manifest` = '{identity(manifest.record())}' and attributes.status = 'FINISHED'"


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
