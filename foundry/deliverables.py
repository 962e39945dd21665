"""What a packager is given and hands on, and how that is told: as rows of a table, as figures by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foundry.hardware import Machine, size
from foundry.records import Checkpoint, Judge, Row, Verdict
from foundry.words import number

TOLD = ("step", "size", "smaller than 16 bits", "made in", "divergence (nats)", "likeliest token", "answers")
"""What `beside_student` tells of each step, before the examination's scores."""

TESTED = ("file", "test", "found", "required", "holds")
"""What `tested` tells of each test."""

_MEGABYTE = 10**6
_WEIGHTS = (".gguf", ".safetensors")


@dataclass(frozen=True)
class Examined:
    """A checkpoint that has passed its examination, and what its job knows of it: what a packager is given.

    Attributes:
        checkpoint: What is packaged.
        run_dir: The run directory, whose records say how it came about.
        learnt: The rows that it learnt from; none for a merge.
        held_out: The rows that it was examined on.
        verdict: The examination's outcome.
        machine: What it is computed on.
        judge: Measures a deliverable as the examination measured the checkpoint.
    """

    checkpoint: Checkpoint
    run_dir: Path
    learnt: Sequence[Row]
    held_out: Sequence[Row]
    verdict: Verdict
    machine: Machine
    judge: Judge


@dataclass(frozen=True)
class Trial:
    """One test of a file as a service.

    Attributes:
        name: What is tested.
        found: What was found, in words.
        required: What was asked for; empty where nothing was.
        passed: Whether it holds.
        metric: The name of its figure.
        value: The figure; 1 or 0 where a test holds or not, None where nothing could be measured.
    """

    name: str
    found: str
    required: str
    passed: bool
    metric: str
    value: float | None


@dataclass(frozen=True)
class Agreement:
    """A step of the packaging beside the student.

    Attributes:
        step: Its name.
        after: What it was made from; empty for the student itself.
        kl: Mean divergence from the student, in nats.
        top1: Share of the places with the student's likeliest token (0 to 1).
        answers: Share of prompts answered like the student (0 to 1).
        places: How many places were compared.
        same_prompts: Whether every prompt has the student's token ids.
        note: The first difference, in words.
        size: Bytes on disk.
        seconds: How long it took to make.
        metrics: The examination's, by name.
        tests: Tests as a service.
    """

    step: str
    after: str = ""
    kl: float = 0.0
    top1: float = 1.0
    answers: float = 1.0
    places: int = 0
    same_prompts: bool = True
    note: str = ""
    size: int = 0
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    tests: Sequence[Trial] = ()


@dataclass(frozen=True)
class Package:
    """Deliverables beside the checkpoint.

    Attributes:
        path: Their folder; None where there are none.
        files: The SHA-256 of each, by path relative to the run directory.
        unmet: Why they may not be published; empty where they may.
        steps: The student first, then each step that was held to it.
        full: Bytes of the 16-bit file that the others are smaller than.
        notes: What else there is to say.
    """

    path: Path | None
    files: Mapping[str, str] = field(default_factory=dict)
    unmet: str = ""
    steps: Sequence[Agreement] = ()
    full: int = 0
    notes: Sequence[str] = ()

    @property
    def papers(self) -> list[Path]:
        """The files that are not weights, where they lie."""
        folder = self.path.parent if self.path else Path()
        return [folder / name for name in self.files if not name.endswith(_WEIGHTS)]


NOTHING = Package(None)
"""No deliverables."""


def beside_student(package: Package, verdict: Verdict) -> tuple[list[str], list[list[str]]]:
    """A table's head and rows: the untouched base, the student, and each step beside it, with the scores of each."""
    names = [measurement.name for measurement in verdict.measurements]
    base = ["untouched base", *["–"] * (len(TOLD) - 1), *(_value(m.baseline) for m in verdict.measurements)]
    return [*TOLD, *names], [base, *(_row(step, package.full, names) for step in package.steps)]


def _row(step: Agreement, full: int, names: Sequence[str]) -> list[str]:
    weight = [size(step.size), percent(1 - step.size / full)] if step.size else ["–", "–"]
    alike = [f"{step.kl:.2g}", f"{percent(step.top1)} of {step.places}", percent(step.answers)]
    took = f"{step.seconds:.1f} s" if step.seconds else "–"
    likeness = alike if step.places else ["–"] * 3
    return [step.step, *weight, took, *likeness, *(_value(step.metrics.get(name)) for name in names)]


def tested(package: Package) -> list[list[str]]:
    """A table's rows: each test of each file as a service."""
    return [
        [step.step, test.name, test.found, test.required or "–", "yes" if test.passed else "no"]
        for step in package.steps
        for test in step.tests
    ]


def listed(package: Package) -> list[tuple[str, str, str]]:
    """The files by name, with their size in words and their SHA-256."""
    if package.path is None:
        return []
    run_dir = package.path.parent
    return [(name, size((run_dir / name).stat().st_size), sha) for name, sha in package.files.items()]


def figures(package: Package) -> dict[str, float]:
    """What was measured of each step but the student, as `package/<step>/<name>`; sizes in MB, 10⁶ bytes."""
    return {
        f"package/{step.step}/{name}": value for step in package.steps[1:] for name, value in _figures(step, package)
    }


def _figures(step: Agreement, package: Package) -> Iterator[tuple[str, float]]:
    yield from (("kl", step.kl), ("top1", step.top1), ("answers", step.answers), ("seconds", step.seconds))
    if step.size:
        yield from (("size_mb", step.size / _MEGABYTE), ("smaller", 1 - step.size / package.full))
    yield from step.metrics.items()
    yield from ((test.metric, test.value) for test in step.tests if test.value is not None)


def likeness(step: Agreement) -> str:
    """One step in words, as in `Q8_0: 138 MiB, divergence 0.0039, likeliest token 99.1 %, answers 100 %`."""
    weight = f"{size(step.size)}, " if step.size else ""
    alike = f"likeliest token {percent(step.top1)}, answers {100 * step.answers:.0f} %"
    return f"{step.step}: {weight}divergence {step.kl:.2g}, {alike}"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f} %"


def _value(value: float | None) -> str:
    if value is None:
        return "–"
    return percent(value) if 0 <= value <= 1 else number(value)
