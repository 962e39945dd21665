"""From a checkpoint to its release: number → examine → judge → package → card → report → seal → track → publish.

Training and merging end alike, so both entries hand what they made to `finish`. It knows the rooms only by what it
asks of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, cast

from pydantic import model_validator

from foundry import card, lot, outcome, report
from foundry.deliverables import NOTHING, Examined, Package
from foundry.errors import GateError
from foundry.hardware import Machine
from foundry.records import Answerer, Checkpoint, Dataset, Decontamination, Pruned, Release, Verdict
from foundry.replay import Manifest


class Examines(Protocol):
    """The part of an examiner that is asked for here."""

    @property
    def examines(self) -> bool:
        """Whether there is an examination."""

    def examine(
        self,
        checkpoint: Checkpoint,
        dataset: Dataset,
        machine: Machine,
        parents: Mapping[str, Checkpoint] | None = None,
    ) -> Verdict:
        """Judge a checkpoint."""

    def judge(self, subject: Checkpoint | Answerer, dataset: Dataset, machine: Machine) -> Mapping[str, float]:
        """Measure something else on the same questions."""


class Packages(Protocol):
    """The part of a packager that is asked for here."""

    def package(self, examined: Examined) -> Package:
        """Make deliverables of a checkpoint."""


class Publishes(Protocol):
    """The part of a publisher that is asked for here."""

    @property
    def publishes(self) -> bool:
        """Whether anything goes anywhere."""

    def publish(self, run_dir: Path, checkpoint: Checkpoint, verdict: Verdict) -> Release:
        """Publish a run directory's model."""


class Job(Protocol):
    """The part of a manifest that says how a job ends."""

    @property
    def examine(self) -> Examines:
        """What the student must be able to do."""

    @property
    def package(self) -> Packages:
        """What is made of it."""

    @property
    def publish(self) -> Publishes:
        """Where it goes."""


class Ending(Manifest):
    """The manifest of a job that ends here: nothing is published that was not examined."""

    @model_validator(mode="after")
    def _publishing_needs_an_examination(self) -> Self:
        job = cast("Job", self)
        if job.publish.publishes and not job.examine.examines:
            raise ValueError("examine=none leaves nothing to publish on; set publish=none, or an examination")
        return self


class Tracked(outcome.Run, Protocol):
    """A tracked run that can say where its store is."""

    store: str


@dataclass(frozen=True)
class Product:
    """What a job made, and what it was made of.

    Attributes:
        checkpoint: The model, not numbered yet; one that was not made by this job has the lot that it comes from.
        machine: What it was computed on.
        seed: The seed that decided what came out.
        dataset: The job's rows; None where none were needed, as for a merge that nobody examines.
        pruned: The rows that it learnt from; None for a merge.
        overlap: What training rows share with evaluation rows, where that was looked at.
        parents: What a merge was made of, by name.
    """

    checkpoint: Checkpoint
    machine: Machine
    seed: int
    dataset: Dataset | None = None
    pruned: Pruned | None = None
    overlap: Decontamination | None = None
    parents: Mapping[str, Checkpoint] = field(default_factory=dict)


def finish(job: Job, settings: Mapping[str, Any], product: Product, run_dir: Path, run: Tracked) -> Release:
    """Take a checkpoint through its examination, and publish it if that is passed.

    Args:
        job: How the job ends.
        settings: The resolved manifest.
        product: What was made.
        run_dir: The run directory, with the checkpoint in it.
        run: The MLflow run.

    Raises:
        GateError: The verdict lets nothing be published.
        FoundryError: Of the kind that went wrong.
    """
    dataset, pruned = product.dataset, product.pruned
    lots = [*(dataset.parents if dataset else ()), *(parent.lot for parent in product.parents.values())]
    lots += [product.checkpoint.lot] if product.checkpoint.lot else []
    checkpoint = outcome.numbered(
        run_dir, settings, dataset, pruned, product.checkpoint, product.machine, product.seed, lots
    )
    verdict = _judged(job, product, checkpoint)
    outcome.judged(run_dir, verdict)
    package = _packaged(job, product, checkpoint, verdict, run_dir)
    card.write(settings, dataset, pruned, checkpoint, verdict, package)
    page = report.write(run_dir, settings, dataset, pruned, checkpoint, verdict, package)
    lot.seal(run_dir, [*outcome.SEALED, *package.files])
    outcome.track(run, run_dir, checkpoint, verdict, package)
    if not verdict.passed or package.unmet:
        outcome.summary(run_dir, page, checkpoint, verdict, package, None, run.store)
        raise GateError(outcome.unmet(verdict, package))
    release = job.publish.publish(run_dir, checkpoint, verdict)
    outcome.released(run, run_dir, release)
    outcome.summary(run_dir, page, checkpoint, verdict, package, release, run.store)
    return release


def _packaged(job: Job, product: Product, checkpoint: Checkpoint, verdict: Verdict, run_dir: Path) -> Package:
    """What passed is packaged; what did not needs no deliverables."""
    if not verdict.passed:
        return NOTHING
    dataset, machine = product.dataset, product.machine
    learnt = product.pruned.rows if product.pruned else ()
    held_out = dataset.eval if dataset else ()

    def judge(subject: Checkpoint | Answerer) -> Mapping[str, float]:
        return job.examine.judge(subject, dataset, machine) if dataset else {}

    return job.package.package(Examined(checkpoint, run_dir, learnt, held_out, verdict, machine, judge))


def _judged(job: Job, product: Product, checkpoint: Checkpoint) -> Verdict:
    if product.dataset is None:
        return Verdict(passed=True, measurements=(), eval_sha256="", lot=checkpoint.lot, examined=False)
    verdict = job.examine.examine(checkpoint, product.dataset, product.machine, product.parents)
    return replace(verdict, decontamination=product.overlap)
