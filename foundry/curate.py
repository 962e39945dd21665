"""Curation as an entry of its own: select → prune → separate → Parquet shards with their lot."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from omegaconf import DictConfig
from pydantic import Field, field_validator, model_validator

from foundry import Entry, app, console, curation, outcome, tracking
from foundry.data import Source
from foundry.engine import Engine, using
from foundry.examine import Examiner
from foundry.prune import Pruner
from foundry.records import Curated, Dataset, Decontamination, Pruned
from foundry.replay import Manifest
from foundry.run import reserve, writing


class CurateManifest(Manifest):
    """Everything that a curation is, typed and checked.

    Attributes:
        data: Where rows come from.
        prune: Which of them stay.
        examine: What the training rows are kept apart from.
        engine: Where the work is done.
        out: The folder to make.
        shard_megabytes: Canonical JSON in a shard, in 10⁶ bytes, at most.
    """

    data: Source
    prune: Pruner
    examine: Examiner
    engine: Engine
    out: str = Field(min_length=1)
    shard_megabytes: int = Field(256, ge=1, le=1024)

    @field_validator("out")
    @classmethod
    def _a_folder_here(cls, out: str) -> str:
        if "://" in out:
            raise ValueError(f"found {out!r}, expected a folder on this machine; copy it from there")
        return out

    @model_validator(mode="after")
    def _nothing_is_measured(self) -> Self:
        if self.examine.examines:
            raise ValueError("a curation has no student to examine; set examine=separate or examine=none")
        return self


def curate(manifest: CurateManifest, run_dir: Path | None = None) -> Curated:
    """Prepare a set and write it, whole or not at all.

    Args:
        manifest: The typed job.
        run_dir: A fresh directory of its own, for log and metrics; reserved under outputs/ by default.

    Raises:
        FoundryError: Of the kind that went wrong; ConfigError if `out` is there already.
    """
    curation.refuse_taken(manifest.out)
    settings = manifest.record()
    run_dir = run_dir or Path(reserve("outputs", manifest.job_id))
    with outcome.recorded(run_dir, settings), tracking.start(run_dir, settings, manifest.job_id, {}) as run:
        console.stage("job", f"{manifest.job_id} · {console.near(run_dir)}")
        dataset, pruned, checked = prepare(manifest)
        run.dataset(dataset)
        with writing(Path(manifest.out)):
            limit = manifest.shard_megabytes * 10**6
            curated = curation.write(Path(manifest.out), settings, dataset, pruned, checked, limit)
        curation.track(run, curated, dataset, pruned)
        curation.summary(curated, dataset, run.store)
        return curated


def prepare(manifest: CurateManifest) -> tuple[Dataset, Pruned, Decontamination | None]:
    """Load, prune and separate the rows on the manifest's engine, and say what comes of it.

    Raises:
        DataError: The rows cannot be used.
    """
    with using(manifest.engine):
        dataset = manifest.data.load()
        outcome.selected(dataset)
        pruned, checked = manifest.examine.separate(manifest.prune.prune(dataset), dataset)
    outcome.pruned(None, dataset, pruned)
    outcome.separated(checked)
    return dataset, pruned, checked


def rehearse(manifest: CurateManifest) -> None:
    """Do everything of a curation but the writing, and show three rows.

    Raises:
        FoundryError: As `curate` would.
    """
    _, pruned, _ = prepare(manifest)
    curation.rehearsed(pruned)


def compose(overrides: Sequence[str] = ()) -> CurateManifest:
    """Compose and check a curation as the command line does.

    Args:
        overrides: As on the command line, such as `["data.path=rows.jsonl", "out=clean"]`.

    Raises:
        ConfigError: A setting is wrong.
    """
    return app.composed("curate", overrides, CurateManifest.from_config)


def check(cfg: DictConfig, overrides: Sequence[str]) -> CurateManifest:
    """Build the manifest, and see before anything is read that its folder is not taken.

    Raises:
        ConfigError: A setting is wrong.
    """
    manifest = CurateManifest.from_config(cfg, overrides)
    curation.refuse_taken(manifest.out)
    return manifest


def job(cfg: DictConfig) -> Any:
    """One job of a Hydra run or sweep; returns where its run directory is, or in a sweep what it came to."""
    return app.one_job(cfg, CurateManifest.from_config, curate, rehearse)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `foundry curate`; returns its exit code."""
    return app.main(job, check, "curate", argv)


sys.modules[__name__].__class__ = Entry

if __name__ == "__main__":
    from foundry.curate import main as importable_main  # so that launchers can pickle the job by its name

    sys.exit(importable_main())
