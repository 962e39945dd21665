"""Merging: parents → recipe → fused model → examine → package → publish."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from foundry import Entry, app, console, outcome, tracking
from foundry.compute import Compute
from foundry.data import Source
from foundry.examine import Examiner
from foundry.hardware import enough_disk, enough_memory, forget_peak
from foundry.lifecycle import Ending, Product, finish
from foundry.loading import weight_bytes
from foundry.model import ModelSource
from foundry.package import Packager
from foundry.publish import Publisher
from foundry.recipe import Prepared, Recipe
from foundry.records import Dataset, Release
from foundry.run import reserve, writing


class MergeManifest(Ending):
    """Everything that a merge is, typed and checked.

    Attributes:
        data: What the examination asks; it is read only where there is one.
        model: The base that the parents have in common.
        recipe: The parents, and how they are fused.
        compute: What it is computed on.
        examine: What the fused model must be able to do.
        package: What is made of it.
        publish: Where it goes.
    """

    data: Source
    model: ModelSource
    recipe: Recipe
    compute: Compute
    examine: Examiner
    package: Packager
    publish: Publisher


def merge(manifest: MergeManifest, run_dir: Path | None = None) -> Release:
    """Fuse the parents, and take what comes out through examination to its release.

    Args:
        manifest: The typed job.
        run_dir: A fresh directory of its own; reserved under outputs/ by default. Until the parents are seen to fit,
            nothing is written.

    Raises:
        FoundryError: Of the kind that went wrong; GateError if the verdict lets nothing be published.
    """
    settings = manifest.record()
    machine = manifest.compute.machine()
    prepared = prepare(manifest)
    run_dir = run_dir or Path(reserve("outputs", manifest.job_id))
    with (
        outcome.recorded(run_dir, settings),
        tracking.start(run_dir, settings, manifest.job_id, {}) as run,
        writing(run_dir),
    ):
        console.stage("job", f"{manifest.job_id} · {console.near(run_dir)}")
        outcome.parents(prepared.base, prepared.parents, prepared.needs)
        dataset = _select(manifest)
        if dataset:
            run.dataset(dataset)
        forget_peak("cpu")  # what an examination took in a sweep's job before is not the fusion's
        checkpoint = manifest.recipe.fuse(prepared, machine, run_dir)
        outcome.fused(checkpoint)
        product = Product(checkpoint, machine, manifest.recipe.seed, dataset, parents=prepared.parents)
        return finish(manifest, settings, product, run_dir, run)


def prepare(manifest: MergeManifest) -> Prepared:
    """Find base and parents, and see that they fit each other and this machine, and that there is a way to publish.

    Raises:
        ConfigError: There is no such parent, or a setting does not suit them.
        DataError: A parent cannot be used.
        HardwareError: There is too little memory or disk.
        PublishError: What publishing needs is missing.
    """
    manifest.publish.check()
    base = manifest.model.fetch()
    manifest.package.check(base)
    machine = manifest.compute.machine()
    prepared = manifest.recipe.prepare(base, machine)
    if manifest.examine.examines:
        enough_memory(weight_bytes(prepared.base, machine), machine, "to examine what is fused (or examine=none)")
    enough_disk(Path(), prepared.needs["disk"])
    return prepared


def _select(manifest: MergeManifest) -> Dataset | None:
    """Load the rows to examine on, if there is an examination."""
    if not manifest.examine.examines:
        return None
    dataset = manifest.data.load()
    outcome.selected(dataset)
    manifest.examine.check(dataset)
    return dataset


def rehearse(manifest: MergeManifest) -> None:
    """Do everything of a merge that comes before the fusion, and say what it would take.

    Raises:
        FoundryError: As `merge` would.
    """
    prepared = prepare(manifest)
    outcome.parents(prepared.base, prepared.parents, prepared.needs)
    _select(manifest)
    console.stage("dry run", "the parents fit; nothing was fused")


def compose(overrides: Sequence[str] = ()) -> MergeManifest:
    """Compose and check a merge as the command line does.

    Args:
        overrides: As on the command line, such as `["recipe=ties", "recipe.adapters=[{path: A}, {path: B}]"]`.

    Raises:
        ConfigError: A setting is wrong.
    """
    return app.composed("merge", overrides, MergeManifest.from_config)


def check(cfg: DictConfig, overrides: Sequence[str]) -> MergeManifest:
    """Build the manifest, and see that its parents are there: of a sweep, before the first job runs.

    Raises:
        ConfigError: A setting is wrong, or there is nothing at a parent's path.
        DataError: There is no model at a parent's path, or one that cannot be used.
    """
    manifest = MergeManifest.from_config(cfg, overrides)
    manifest.recipe.look()
    return manifest


def job(cfg: DictConfig) -> Any:
    """One job of a Hydra run or sweep; returns where its run directory is, or in a sweep what it came to."""
    return app.one_job(cfg, MergeManifest.from_config, merge, rehearse)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `foundry merge`; returns its exit code."""
    return app.main(job, check, "merge", argv)


sys.modules[__name__].__class__ = Entry

if __name__ == "__main__":
    from foundry.merge import main as importable_main  # so that launchers can pickle the job by its name

    sys.exit(importable_main())
