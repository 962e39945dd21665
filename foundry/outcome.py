"""What a job leaves behind: the files of its run directory, its MLflow record, and the words on the console."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel as PydanticModel

from foundry import console, lot, retention
from foundry.config import TARGET, Component
from foundry.deliverables import Package, figures, likeness
from foundry.hardware import Machine, Needs, size
from foundry.ranks import world
from foundry.records import (
    BaseModel,
    Checkpoint,
    Dataset,
    Decontamination,
    Measurement,
    Pruned,
    Release,
    Removed,
    Verdict,
    plain,
)
from foundry.release import write_pointer
from foundry.run import write_atomic, write_json, write_jsonl, write_yaml
from foundry.words import conclusion, fact, headline, show, status

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""

SEALED = (
    "manifest.yaml",
    "model/README.md",
    "verdict.json",
    "report.html",
    "removed.jsonl",
    "quarantine.jsonl",
    "loss.csv",
)
"""The files that lot.json seals beside those that the lot number is made of."""


class Run(Protocol):
    """The part of a tracked run that is written to here."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file."""

    def model(self, checkpoint: Checkpoint) -> None:
        """Store the model."""


def settings_of(model: PydanticModel) -> dict[str, Any]:
    """The plain settings that build a manifest again: every field, and each component's `_target_`."""
    named: dict[str, Any] = {}
    if isinstance(model, Component):
        named[TARGET] = f"{type(model).__module__}.{type(model).__qualname__}"
    return named | {name: _plain(getattr(model, name)) for name in type(model).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, PydanticModel):
        return settings_of(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@contextmanager
def recorded(run_dir: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Keep the manifest and a log in the run directory while the job runs."""
    handler = console.log_to(run_dir / console.LOG)
    try:
        write_yaml(run_dir / "manifest.yaml", dict(settings))
        yield
    finally:
        console.stop_log(handler)


def selected(dataset: Dataset) -> None:
    """Say what was read."""
    counts = f"{len(dataset.train):,} training rows, {len(dataset.eval):,} held out"
    console.stage("data", f"{dataset.name}: {counts} · sha256 {dataset.sha256[:12]}")
    for note in dataset.notes:
        console.stage("", note)
    if dataset.quarantined:
        first = dataset.quarantined[0]
        console.warn(
            f"{len(dataset.quarantined):,} rows quarantined; the first: {first.source}:{first.line}: {first.reason}"
        )


def left_out(folder: Path, dataset: Dataset, result: Pruned) -> None:
    """Write removed.jsonl and quarantine.jsonl."""
    write_jsonl(folder / "removed.jsonl", (_told(removed, dataset) for removed in result.removed))
    write_jsonl(folder / "quarantine.jsonl", (asdict(row) for row in dataset.quarantined))


def pruned(run_dir: Path | None, dataset: Dataset, result: Pruned) -> None:
    """Write removed.jsonl and quarantine.jsonl, and say how many rows remain."""
    if run_dir:
        left_out(run_dir, dataset, result)
    repeats = sum(not removed.reference for removed in result.removed)
    console.stage("prune", f"{repeats:,} rows removed, {len(result.rows) + len(result.removed) - repeats:,} kept")
    if result.nearness:
        others = ", ".join(f"{count:,} at {threshold:.2f}" for threshold, count in result.nearness.removals)
        console.stage("", f"by threshold: {others}")


def _told(removed: Removed, dataset: Dataset) -> dict[str, Any]:
    """A removed row with the training row that was kept in its place, if it was one."""
    kept = {} if removed.reference else {"kept": dict(dataset.train[removed.representative])}
    return {**plain(removed), **kept}


def separated(found: Decontamination | None) -> None:
    """Say what overlaps the evaluation rows."""
    if found is None:
        return
    against = " and ".join(f"{count:,} rows of {name}" for name, count in found.references.items())
    count = f"{len(found.findings):,} of {found.rows:,} training rows overlap {against}"
    console.stage("overlap", f"{count}{', dropped' if found.findings and found.action == 'drop' else ''}")
    if len(found.findings) > found.rows / 2:
        console.warn("more than half of the training rows overlap evaluation rows: see docs/decontamination.md")


def warned(warning: str | None) -> None:
    """Warn, if there is something to warn of."""
    if warning:
        console.warn(warning)


def ahead(line: str, audit: str) -> None:
    """Say what training would take and show what the first batch trains."""
    console.stage("train", line)
    for text in audit.splitlines():
        console.stage("mask", text)


def base(model: BaseModel, machine: Machine, needs: Needs) -> None:
    """Say what is trained where."""
    console.stage("model", f"{model.name} · {model.parameters / 1e6:.1f}M parameters · sha256 {model.sha256[:12]}")
    console.stage(
        "compute",
        f"{machine.device} ({machine.name}), {machine.precision}, {machine.threads} threads · "
        f"about {size(needs.total)} needed, {size(machine.memory)} free",
    )


def parents(model: BaseModel, found: Mapping[str, Checkpoint], needs: Mapping[str, int]) -> None:
    """Say what is fused, and what that takes."""
    console.stage("model", f"{model.name} · {model.parameters / 1e6:.1f}M parameters · sha256 {model.sha256[:12]}")
    for name, parent in found.items():
        number = parent.lot.removeprefix("sha256:")[: lot.SHORT]
        said = f"{'sha256' if parent.lot.startswith('sha256:') else 'lot'} {number}"
        console.stage("parent", f"{name} · {parent.kind} · {said} · {console.near(parent.path)}")
    console.stage("compute", " · ".join(f"about {size(count)} of {name} needed" for name, count in needs.items()))


def fused(checkpoint: Checkpoint) -> None:
    """Say what came out of a fusion."""
    told = {k: v for k, v in checkpoint.metrics.items() if k not in {"merge_seconds", "peak_memory_bytes"}}
    facts = [f"{label.lower()} {value}" for label, value in map(fact, told.items())]
    console.stage("merge", " · ".join([*facts, f"{checkpoint.metrics['merge_seconds']:.1f} s"]))


def rehearsed(result: Pruned, lengths: Sequence[tuple[str, int]], needs: Mapping[str, int], machine: Machine) -> None:
    """Show three rows, how long the rows are in tokens, and the memory estimate term by term."""
    for row in result.rows[:3]:
        console.stage("row", json.dumps(row, ensure_ascii=False))
    most = max((count for _, count in lengths), default=1)
    bars = [(bounds, f"{count:,}", "█" * round(30 * count / most)) for bounds, count in lengths]
    console.lines(bars, ["tokens", "rows", ""])
    rows = [(name, size(count)) for name, count in needs.items()]
    console.lines([*rows, ("sum", size(sum(needs.values()))), ("free", size(machine.memory))], ["memory", "about"])


def numbered(
    run_dir: Path,
    settings: Mapping[str, Any],
    dataset: Dataset | None,
    result: Pruned | None,
    checkpoint: Checkpoint,
    machine: Machine,
    seed: int,
    parents: Sequence[str] = (),
) -> Checkpoint:
    """Write lot.json and give the checkpoint its lot number."""
    rows = {"train": dataset.sha256, "eval": dataset.eval_sha256} if dataset else {}
    if result is not None:
        _loss_csv(run_dir)
        rows["pruned"] = result.sha256
    made = lot.make(
        dataset=rows,
        settings=settings,
        base={"name": checkpoint.base.name, "files": dict(checkpoint.base.files)},
        files={f"model/{name}": sha for name, sha in (checkpoint.files or lot.digest_folder(checkpoint.path)).items()},
        seed=seed,
        hardware=machine.describe() | {"processes": world(), "backend": checkpoint.backend},
        parents=parents,
    )
    write_json(run_dir / lot.LOT, made)
    return replace(checkpoint, lot=made["lot"])


def history(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that can be read."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _loss_csv(run_dir: Path) -> None:
    rows = [line for line in history(run_dir) if "loss" in line["metrics"]]
    names = sorted({name for row in rows for name in row["metrics"]})
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["step", *names])
    writer.writerows([row["step"], *(row["metrics"].get(name, "") for name in names)] for row in rows)
    write_atomic(run_dir / "loss.csv", table.getvalue())


def judged(run_dir: Path, verdict: Verdict) -> None:
    """Write verdict.json and say each metric."""
    write_json(run_dir / "verdict.json", plain(verdict))
    for measurement in verdict.measurements:
        console.stage("examine", f"{headline(measurement)}{_majority(measurement)} · {measurement.count} questions")
        if measurement.note:
            console.stage("", measurement.note)


def _majority(measurement: Measurement) -> str:
    """What always giving the more frequent answer would have scored, where the metric knows it."""
    rate = measurement.details.get("majority_rate")
    return "" if rate is None else f" (majority rate {show(measurement, rate)})"


def unmet(verdict: Verdict, package: Package) -> str:
    """Say which gates are not met."""
    failed = [headline(m) + (f" ({m.note})" if m.note else "") for m in verdict.measurements if not m.passed]
    return f"{'; '.join([*failed, *([package.unmet] if package.unmet else [])])}; nothing was published"


def track(run: Run, run_dir: Path, checkpoint: Checkpoint, verdict: Verdict, package: Package) -> None:
    """Put scores, lot, verdict, files, model and what became of its package into MLflow."""
    step = int(checkpoint.metrics.get("steps", 0))
    scores = {m.name: m.measured for m in verdict.measurements}
    gains = {f"{m.name}_gain": m.gain for m in verdict.measurements}
    baselines = {f"{m.name}_baseline": m.baseline for m in verdict.measurements}
    spans = {m.name: m.interval for m in verdict.measurements if m.interval}
    ends = {f"{name}_gain_{end}": span[at] for name, span in spans.items() for at, end in enumerate(("low", "high"))}
    stored = {"model_bytes": float(sum(path.stat().st_size for path in checkpoint.path.rglob("*") if path.is_file()))}
    more = {**retention.tracked(verdict.measurements), **figures(package)}
    run.metrics({**checkpoint.metrics, **stored, **scores, **gains, **baselines, **ends, **more}, step)
    run.tags({"lot": checkpoint.lot, "verdict": status(verdict), "base": checkpoint.base.name})
    run.tags({"backend": checkpoint.backend, NOTE: _note(checkpoint, verdict, package)})
    if package.steps:
        run.tags({"package": "failed" if package.unmet else "passed"})
    for path in package.papers:
        run.artifact(path, "package")
    for name in ("manifest.yaml", "lot.json", "verdict.json", "report.html", "loss.csv"):
        if (run_dir / name).is_file():  # a merge has no losses
            run.artifact(run_dir / name)
    run.model(checkpoint)


def _note(checkpoint: Checkpoint, verdict: Verdict, package: Package) -> str:
    """What MLflow shows at the head of a run's page, as Markdown."""
    scores = "".join(f"- {headline(m)}{_majority(m)}\n" for m in verdict.measurements)
    number, said = checkpoint.lot[: lot.SHORT], conclusion(verdict, package.unmet)
    files = "".join(f"- {likeness(step)}\n" for step in package.steps if step.size)
    return f"**{said}** · lot `{number}` · base {checkpoint.base.name}\n\n{scores}{files}"


def released(run: Run, run_dir: Path, release: Release) -> None:
    """Write release.json and say where the release is."""
    if not release.tag:
        return
    write_pointer(run_dir, release)
    run.tags({"release": release.uri, "release_tag": release.tag})
    console.stage("publish", f"{console.near(release.uri)}{'' if release.fresh else ' (was there already, same lot)'}")
    if release.removed:
        console.stage("", f"{len(release.removed)} files of the run directory are now only there")
    if release.notice:
        run.tags({"release_notice": release.notice})
        console.stage("notify", release.notice)


def summary(
    run_dir: Path,
    page: Path,
    checkpoint: Checkpoint,
    verdict: Verdict,
    package: Package,
    release: Release | None,
    store: str,
) -> None:
    """Print what a person wants to know at the end."""
    rows = {"lot": checkpoint.lot[: lot.SHORT]}
    rows |= {m.name: headline(m).removeprefix(f"{m.name} ") + _majority(m) for m in verdict.measurements}
    rows["verdict"] = conclusion(verdict, package.unmet)
    rows |= _made(checkpoint)
    rows[checkpoint.kind if checkpoint.kind == "adapter" else "model"] = console.near(checkpoint.path)
    if package.path:
        rows["package"] = console.near(package.path)
    rows["report"] = console.near(page)
    place = release.uri if release and release.tag else run_dir
    if release and release.tag:
        rows["release"] = console.near(place)
    rows["verify"] = f"foundry verify {console.near(place)}"
    rows["compare"] = f"foundry ui   (MLflow at {store})"
    title = "merge" if checkpoint.fusion else "train" if checkpoint.metrics else "examine"
    console.summary(f"foundry {title}", rows, passed=verdict.passed and not package.unmet)


def _made(checkpoint: Checkpoint) -> dict[str, str]:
    """How long it took to train or fuse, and in how much memory."""
    metrics = checkpoint.metrics
    if not metrics:
        return {}
    memory = f"peak memory {size(metrics['peak_memory_bytes'])}"
    if checkpoint.fusion:
        names = " + ".join(checkpoint.fusion.names)
        return {"fused": f"{names} by {checkpoint.fusion.method} in {metrics['merge_seconds']:.1f} s · {memory}"}
    pace = f"{metrics['tokens_per_second']:.0f} tokens/s"
    return {"training": f"{metrics['steps']:.0f} steps in {metrics['train_seconds']:.0f} s · {pace} · {memory}"}
