"""What a curation leaves behind: the folder with its shards, lot and card, its MLflow record, the words at the end."""

import json
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from foundry import console, lot, outcome, shards
from foundry.card import escape, leaves
from foundry.errors import ConfigError
from foundry.hardware import size
from foundry.records import Curated, Dataset, Decontamination, Pruned, plain
from foundry.report import groups, render
from foundry.run import clear_abandoned, sync, write_atomic, write_json, write_yaml

SEALED = ("README.md", "manifest.yaml", "removed.jsonl", "quarantine.jsonl", "overlaps.json")
"""The files that lot.json seals beside the shards, of which the lot number is made."""


def refuse_taken(out: str) -> None:
    """See that the folder to make is not there, or is empty.

    Raises:
        ConfigError: Something is there.
    """
    place = Path(out)
    if place.is_symlink() or (place.exists() and not (place.is_dir() and not any(place.iterdir()))):
        raise ConfigError(f"out: {out} is there already; choose another folder, or remove it first")


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `out` by one rename when the `with` block ends well.

    Raises:
        ConfigError: Something lies at `out` by then.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    clear_abandoned(out.parent, out.name)
    scratch = out.with_name(f".{out.name}-{os.getpid()}-{secrets.token_hex(4)}.part")
    scratch.mkdir()
    try:
        yield scratch
        refuse_taken(str(out))
        sync(scratch)
        try:
            scratch.rename(out)
        except OSError:
            refuse_taken(str(out))  # another job was faster
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write(
    out: Path,
    settings: Mapping[str, Any],
    dataset: Dataset,
    pruned: Pruned,
    checked: Decontamination | None,
    limit: int,
) -> Curated:
    """Write the set: shards, what was left out and why, manifest, card and lot.

    Args:
        out: The folder to make.
        settings: The resolved manifest.
        dataset: The rows as they were read; its held-out rows become the split `eval`.
        pruned: The training rows that stay.
        checked: What overlaps evaluation rows, where that was looked at.
        limit: Bytes of canonical JSON in a shard, at most.

    Raises:
        ConfigError: Something lies at `out`.
        DataError: A row has fields that a shard has no column for.
    """
    with whole(out) as folder:
        files = shards.write(folder, shards.TRAIN, pruned.rows, limit)
        files |= shards.write(folder, shards.HELD_OUT, dataset.eval, limit)
        outcome.left_out(folder, dataset, pruned)
        if checked:
            write_json(folder / "overlaps.json", plain(checked))
        write_yaml(folder / "manifest.yaml", dict(settings))
        digests = {"train": dataset.sha256, "pruned": pruned.sha256, "eval": dataset.eval_sha256}
        made = lot.make(dataset=digests, settings=settings, files=files, parents=dataset.parents)
        curated = Curated(
            out.absolute(),
            len(pruned.rows),
            len(dataset.eval),
            pruned.sha256,
            dataset.eval_sha256,
            dataset.sha256,
            made["lot"],
            files,
        )
        write_json(folder / lot.LOT, made)
        write_atomic(folder / "README.md", _card(settings, dataset, pruned, checked, curated))
        lot.seal(folder, SEALED)
    return curated


def _card(
    settings: Mapping[str, Any],
    dataset: Dataset,
    pruned: Pruned,
    checked: Decontamination | None,
    curated: Curated,
) -> str:
    """The dataset card, its front matter as the Hugging Face Hub and `datasets` read it.

    Source: https://huggingface.co/docs/hub/datasets-manual-configuration
    """
    splits = [split for split in (shards.TRAIN, shards.HELD_OUT) if any(n.startswith(split) for n in curated.files)]
    files = [{"split": split, "path": f"{split}/*.parquet"} for split in splits]
    front = {"configs": [{"config_name": "default", "data_files": files}], "tags": ["foundry"]}
    return render(
        "curated.md.j2",
        front=yaml.safe_dump(front, sort_keys=False).strip(),
        name=escape(dataset.name),
        dataset=dataset,
        pruned=pruned,
        checked=checked,
        curated=curated,
        groups=groups(dataset, pruned),
        escape=escape,
        repeats=sum(not removed.reference for removed in pruned.removed),
        reasons=[(escape(reason), count) for reason, count in Counter(_reasons(dataset)).most_common(5)],
        settings=[(escape(key), escape(value)) for key, value in leaves(settings, ("prune", "examine"))],
    )


def _reasons(dataset: Dataset) -> Iterator[str]:
    """Why rows were quarantined, without the numbers in it."""
    return (re.sub(r"\d[\d,]*", "N", bad.reason)[:100] for bad in dataset.quarantined)


def rehearsed(pruned: Pruned) -> None:
    """Show three rows of what would be written."""
    for row in pruned.rows[:3]:
        console.stage("row", json.dumps(row, ensure_ascii=False))
    console.stage("dry run", f"{len(pruned.rows):,} rows would be written; nothing was")


def track(run: Any, curated: Curated, dataset: Dataset, pruned: Pruned) -> None:
    """Put counts, lot and card into MLflow."""
    assert curated.path is not None  # noqa: S101
    counts = {
        "rows_read": len(dataset.train),
        "rows_kept": curated.rows,
        "rows_removed": len(pruned.removed),
        "rows_held_out": curated.held_out,
        "rows_quarantined": len(dataset.quarantined),
    }
    run.metrics({name: float(count) for name, count in counts.items()}, 0)
    run.tags({"lot": curated.lot, "curated": str(curated.path)})
    for name in ("manifest.yaml", lot.LOT, "README.md"):
        run.artifact(curated.path / name)


def summary(curated: Curated, dataset: Dataset, store: str) -> None:
    """Print what a person wants to know at the end."""
    assert curated.path is not None  # noqa: S101
    place = console.near(curated.path)
    written = sum((curated.path / name).stat().st_size for name in curated.files)
    rows = {
        "lot": curated.lot[: lot.SHORT],
        "rows": f"{curated.rows:,} of {len(dataset.train):,} for training, {curated.held_out:,} held out",
        "sha256": curated.sha256,
        "set": f"{place} · {len(curated.files):,} shard{'s'[: len(curated.files) > 1]}, {size(written)}",
        "verify": f"foundry verify {place}",
        "train": f"foundry train data=files data.path={place} …",
        "compare": f"foundry ui   (MLflow at {store})",
    }
    console.summary("foundry curate", rows, passed=True)
