"""An examination: metrics measured on student and baseline alike, and the gates that they must pass."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import Field, model_validator

from foundry.errors import ConfigError, DataError
from foundry.examine import Metric, Score, Subject
from foundry.examine.gates import Confidence, Gate, judged, wanting
from foundry.examine.opened import Opened
from foundry.examine.samples import samples
from foundry.examine.separate import Separating
from foundry.existing import existing
from foundry.hardware import Machine
from foundry.records import Answerer, Checkpoint, Dataset, Measurement, Row, Verdict
from foundry.retention import best_parent

if TYPE_CHECKING:
    from foundry.examine.overlap import Reference

BASE = "the untouched base"
Evidence = dict[str, dict[str, list[Any]]]
"""What each model did, by its name, then by metric."""


class Exam(Separating):
    """Measures every metric on the baseline and on the student, with the same code, questions and batches.

    Attributes:
        metrics: What is measured, by name.
        gates: What is required, by a metric's name.
        baseline: A run directory, release, adapter or model folder to compare with; None for the untouched base.
        confidence: Whether a gain, and what a merge keeps of one, must reach its gate with the lower end of its 95 %
            interval (`point`: as measured).
    """

    metrics: dict[str, Metric] = Field(min_length=1)
    gates: dict[str, Gate] = Field(default_factory=dict)
    baseline: str | None = Field(None, min_length=1)
    confidence: Confidence = "interval"

    @model_validator(mode="after")
    def _gates_have_metrics(self) -> Self:
        for name in self.gates:
            if name not in self.metrics:
                raise ValueError(f"gates.{name}: there is no such metric (measured: {', '.join(sorted(self.metrics))})")
        return self

    def needs_parents(self) -> str | None:
        """The first gate with a `min_retention`."""
        return wanting(self.gates)

    def check(self, dataset: Dataset) -> None:
        """Look before training whether every metric can ask its questions, and whether the baseline is there.

        Raises:
            DataError: There are no held-out rows, they do not suit a metric, or the baseline cannot be opened.
            ConfigError: Something that a metric needs is not installed.
        """
        for name, metric in self.metrics.items():
            rows, _ = metric.questions(dataset) if metric.asks_rows else ((), "")
            if metric.asks_rows and not rows:
                raise DataError(
                    f"examine.metrics.{name}: there are no held-out rows; raise data.eval_size or data.eval_fraction, "
                    f"give examine.metrics.{name}.data, or examine=none"
                )
            metric.check(rows, name)
        if self.baseline is not None:
            existing(Path(self.baseline), "examine.baseline").need_intact()

    def references(self, dataset: Dataset) -> "list[Reference]":
        """What is asked: the held-out rows, where a metric asks them, and every metric's own questions."""
        from foundry.examine.overlap import Reference

        own = {name: metric.asked(dataset) for name, metric in self.metrics.items() if metric.own()}
        asked = any(metric.asks_rows and name not in own for name, metric in self.metrics.items())
        held_out = super().references(dataset) if asked else []
        return [*held_out, *(Reference(name, rows) for name, rows in own.items())]

    def examine(
        self,
        checkpoint: Checkpoint,
        dataset: Dataset,
        machine: Machine,
        parents: Mapping[str, Checkpoint] | None = None,
    ) -> Verdict:
        """Measure baseline, student and parents, and hold the gates to what comes out.

        Raises:
            ConfigError: A gate compares with parents, and there are none.
        """
        key = self.needs_parents()
        if key and not parents:
            raise ConfigError(f"examine.{key}: compares a merge with its parents, and there are none; set it to null")
        found = self._evidence(checkpoint, dataset, machine, parents or {})
        measurements = [
            self._measure(name, metric, dataset, found, list(parents or {})) for name, metric in self.metrics.items()
        ]
        passed = all(measurement.passed for measurement in measurements)
        return Verdict(passed, measurements, dataset.eval_sha256, checkpoint.lot)

    def _evidence(
        self, checkpoint: Checkpoint, dataset: Dataset, machine: Machine, parents: Mapping[str, Checkpoint]
    ) -> Evidence:
        """Put every question to every model, one model after the other."""
        models = {}
        if self.baseline is None:
            models["baseline"] = Opened(checkpoint, machine, "baseline", base=True, keep=True)
        else:
            other = existing(Path(self.baseline), "examine.baseline").checkpoint(checkpoint.base, own_base=True)
            models["baseline"] = Opened(other, machine, "baseline", base=False, keep=True)
            if any(metric.relative for metric in self.metrics.values()):
                models[BASE] = Opened(checkpoint, machine, BASE, base=True, keep=True)
        models["student"] = Opened(checkpoint, machine, "student", base=False, keep=False)
        for name, parent in parents.items():
            models[f"parent {name}"] = Opened(parent, machine, f"parent {name}", base=False, keep=True)
        found: Evidence = {}
        for name, model in models.items():
            asked = {key: metric for key, metric in self.metrics.items() if name != BASE or metric.relative}
            found[name] = {
                key: model.evidence(key, metric, *metric.questions(dataset)) for key, metric in asked.items()
            }
            model.close()
        found.setdefault(BASE, found["baseline"])
        return found

    def judge(self, subject: Checkpoint | Answerer, dataset: Dataset, machine: Machine) -> Mapping[str, float]:
        """Measure something else on the same questions, a packaged file for instance: values by a metric's name.

        Of what can only answer, the metrics that judge answers are measured.
        """
        asked = {name: metric for name, metric in self.metrics.items() if metric.judged and metric.asks_rows}
        if isinstance(subject, Checkpoint):
            opened = Opened(subject, machine, subject.path.name, base=False, keep=False)
            found = {name: opened.evidence(name, one, *one.questions(dataset)) for name, one in asked.items()}
            opened.close()
        else:
            answering = cast("Subject", subject)  # nothing else is asked of it
            found = {name: one.ask(answering, one.questions(dataset)[0], name) for name, one in asked.items()}
        return {name: one.score(one.questions(dataset)[0], found[name]).value for name, one in asked.items()}

    def _measure(
        self, name: str, metric: Metric, dataset: Dataset, found: Evidence, parents: Sequence[str]
    ) -> Measurement:
        from foundry.examine.bootstrap import beyond_share, gain

        rows, rows_sha256 = metric.questions(dataset)
        before, after = found["baseline"][name], found["student"][name]
        base, student = _score(metric, rows, found, "baseline", name), _score(metric, rows, found, "student", name)
        measurement = Measurement(
            name=name,
            measured=student.value,
            baseline=base.value,
            count=len(student.items),
            details={**student.details, **{f"baseline_{key}": value for key, value in base.details.items()}},
            samples=samples(metric, rows, before, after, base, student),
            parents={parent: _score(metric, rows, found, f"parent {parent}", name).value for parent in parents},
            lower_is_better=metric.lower_is_better,
            judged=metric.judged,
            questions_sha256=rows_sha256 if metric.asks_rows else "",
        )
        gate, best, beyond = self.gates.get(name, Gate()), best_parent(measurement), None
        if gate.min_retention is not None and best is not None:
            parent = _score(metric, rows, found, f"parent {best}", name)
            beyond = beyond_share(base, student, parent, gate.min_retention)
        return judged(measurement, gate, gain(base, student), self.confidence, beyond)


def _score(metric: Metric, rows: Sequence[Row], found: Evidence, model: str, name: str) -> Score:
    score = metric.score(rows, found[model][name])
    return score.beyond(metric.score(rows, found[BASE][name])) if metric.relative else score
