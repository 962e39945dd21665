"""The main job: select → prune → train → examine → package → publish."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from omegaconf import DictConfig
from pydantic import model_validator

from foundry import Entry, app, console, outcome, tracking
from foundry.compute import Compute
from foundry.data import Source
from foundry.errors import DataError
from foundry.examine import Examiner
from foundry.hardware import Machine, preflight
from foundry.lifecycle import Ending, Product, finish
from foundry.lot import digest_rows
from foundry.method import Method
from foundry.model import ModelSource
from foundry.package import Packager
from foundry.prune import Pruner
from foundry.publish import Publisher
from foundry.records import Dataset, Decontamination, Pruned, Release, wrong_shape
from foundry.run import reserve, writing

DISK = 2 * 2**30
"""Bytes that must be free on the disk before a job starts: checkpoints, model, caches."""


class TrainManifest(Ending):
    """Everything that a job is, typed and checked; a job does nothing that is not in here.

    Attributes:
        data: Where rows come from.
        prune: Which of them stay.
        model: The base model.
        method: How the student learns.
        compute: What it is computed on.
        examine: What it must be able to do.
        package: What is made of it.
        publish: Where it goes.
        resume: A run directory to go on from.
    """

    data: Source
    prune: Pruner
    model: ModelSource
    method: Method
    compute: Compute
    examine: Examiner
    package: Packager
    publish: Publisher
    resume: str | None = None

    @model_validator(mode="after")
    def _no_gate_asks_for_parents(self) -> Self:
        if key := self.examine.needs_parents():
            raise ValueError(f"examine.{key}: compares a merge with its parents; expected null in a training")
        return self


def train(manifest: TrainManifest, run_dir: Path | None = None) -> Release:
    """Run the whole lifecycle.

    Args:
        manifest: The typed job.
        run_dir: A fresh directory of its own; reserved under outputs/ by default.

    Raises:
        FoundryError: Of the kind that went wrong; GateError if the verdict lets nothing be published.
    """
    settings = manifest.record()
    run_dir = run_dir or Path(reserve("outputs", manifest.job_id))
    with (
        outcome.recorded(run_dir, settings),
        tracking.start(run_dir, settings, manifest.job_id, {}) as run,
        writing(run_dir),
    ):
        console.stage("job", f"{manifest.job_id} · {console.near(run_dir)}")
        node = _node(manifest)
        dataset = _select(manifest)
        run.dataset(dataset)
        pruned, checked = _prepared(manifest, dataset, run_dir)
        base = manifest.model.fetch()
        manifest.package.check(base)
        machine = manifest.compute.machine()
        needs = manifest.method.estimate(pruned, base, manifest.compute, node)
        outcome.base(base, node, needs)
        outcome.warned(preflight(needs, node, strict=manifest.method.strict_hardware_check, folder=run_dir, disk=DISK))
        resume = Path(manifest.resume) if manifest.resume else None
        checkpoint = manifest.method.train(pruned, base, manifest.compute, machine, run_dir, run, resume)
        learnt = pruned if manifest.method.trains else None
        product = Product(checkpoint, machine, manifest.compute.seed, dataset, learnt, checked)
        return finish(manifest, settings, product, run_dir, run)


def _node(manifest: TrainManifest) -> Machine:
    """The machine that is planned for; method, node and registry must be in order before anything is loaded."""
    manifest.publish.check()
    node = manifest.compute.node()
    outcome.warned(manifest.method.check(manifest.model.config, manifest.compute, node))
    return node


def _select(manifest: TrainManifest) -> Dataset:
    """Load the rows and see that method and examination can use them."""
    dataset = manifest.data.load()
    outcome.selected(dataset)
    if dataset.shape not in manifest.method.shapes:
        raise DataError(wrong_shape(dataset.name, dataset.shape, manifest.method.shapes))
    if manifest.method.trains and not dataset.train:
        raise DataError(f"data: {dataset.name} has no training rows, only held-out ones; expected some, or method=none")
    manifest.examine.check(dataset)
    return dataset


def _prepared(manifest: TrainManifest, dataset: Dataset, run_dir: Path | None) -> tuple[Pruned, Decontamination | None]:
    """Prune the rows and part them from the evaluation rows; nothing of that where nothing is learnt."""
    if not manifest.method.trains:
        return Pruned((), (), digest_rows(()), dataset.sha256), None
    pruned, checked = manifest.examine.separate(manifest.prune.prune(dataset), dataset)
    outcome.pruned(run_dir, dataset, pruned)
    outcome.separated(checked)
    return pruned, checked


def rehearse(manifest: TrainManifest) -> None:
    """Do everything of a job that comes before training, and show what training would take.

    Raises:
        FoundryError: As `train` would, before its first step.
    """
    node = _node(manifest)
    dataset = _select(manifest)
    pruned, _ = _prepared(manifest, dataset, None)
    base = manifest.model.fetch()
    manifest.package.check(base)
    here = manifest.compute.machine() if manifest.compute.device_memory_gb is None else None
    ahead = manifest.method.outlook(pruned, base, manifest.compute, node, here)
    outcome.base(base, node, ahead.needs)
    outcome.rehearsed(pruned, ahead.lengths, ahead.needs.terms, node)
    outcome.ahead(ahead.line, ahead.audit)
    warning = preflight(ahead.needs, node, strict=manifest.method.strict_hardware_check, folder=Path(), disk=DISK)
    console.stage("dry run", warning or "fits; nothing was trained")


def compose(overrides: Sequence[str] = ()) -> TrainManifest:
    """Compose and check a job as the command line does.

    Args:
        overrides: As on the command line, such as `["method=dora", "method.adapter.rank=8"]`.

    Raises:
        ConfigError: A setting is wrong.
    """
    return app.composed("train", overrides, TrainManifest.from_config)


def job(cfg: DictConfig) -> Any:
    """One job of a Hydra run or sweep; returns where its run directory is, or in a sweep what it came to."""
    return app.one_job(cfg, TrainManifest.from_config, train, rehearse)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `foundry train`; returns its exit code."""
    return app.main(job, TrainManifest.from_config, "train", argv)


sys.modules[__name__].__class__ = Entry

if __name__ == "__main__":
    from foundry.train import main as importable_main  # so that launchers can pickle the job by its name

    sys.exit(importable_main())
