"""An examination: metrics measured on student and baseline alike, and the gates that they must pass."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from foundry.config import Settings
from foundry.errors import DataError
from foundry.examine import Metric, Score
from foundry.examine.separate import Separating
from foundry.hardware import Machine
from foundry.lot import digest, digest_file, libraries
from foundry.records import (
    Answerer,
    BaseModel,
    Checkpoint,
    Dataset,
    Measurement,
    Row,
    Sample,
    Verdict,
)
from foundry.run import cache_root, write_json

SAMPLES = 12


class Gate(Settings):
    """What a metric must reach; bounds that are None are not asked for.

    Attributes:
        min: Lowest value.
        max: Highest value.
        min_gain: Lowest difference to the baseline.
    """

    min: float | None = None
    max: float | None = None
    min_gain: float | None = None

    def required(self) -> dict[str, float]:
        """The bounds that are asked for."""
        return {name: bound for name, bound in self.model_dump().items() if bound is not None}

    def passes(self, measured: float, baseline: float) -> bool:
        """Whether every bound holds; the bounds themselves count as reached, rounding aside."""
        slack = 1e-9
        reached = self.min is None or measured >= self.min - slack
        below = self.max is None or measured <= self.max + slack
        gained = self.min_gain is None or measured - baseline >= self.min_gain - slack
        return reached and below and gained


class Exam(Separating):
    """Measures every metric on the untouched base and on the student, with the same code and questions.

    Attributes:
        metrics: What is measured, by name.
        gates: What is required, by a metric's name.
    """

    metrics: dict[str, Metric] = Field(min_length=1)
    gates: dict[str, Gate] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _gates_have_metrics(self) -> Self:
        for name in self.gates:
            if name not in self.metrics:
                raise ValueError(f"gates.{name}: there is no such metric (measured: {', '.join(sorted(self.metrics))})")
        return self

    def check(self, dataset: Dataset) -> None:
        """Look before training whether every metric can read the held-out rows.

        Raises:
            DataError: There are none, or their references do not suit a metric.
        """
        if not dataset.eval:
            raise DataError(
                "examine: there are no held-out rows; raise data.eval_size or data.eval_fraction, or examine=none"
            )
        for metric in self.metrics.values():
            metric.check(dataset.eval)

    def examine(
        self,
        checkpoint: Checkpoint,
        dataset: Dataset,
        machine: Machine,
        parents: Mapping[str, Checkpoint] | None = None,
    ) -> Verdict:
        """Measure both and hold the gates to it."""
        rows = dataset.eval
        baseline = self._baseline(checkpoint.base, rows, dataset.eval_sha256, machine)
        student = self._answers(checkpoint, rows, machine, "student")
        others = {name: self._answers(parent, rows, machine, name) for name, parent in (parents or {}).items()}
        measurements = [
            replace(
                self._measure(name, metric, rows, baseline[name], student[name]),
                parents={parent: metric.score(rows, found[name]).value for parent, found in others.items()},
            )
            for name, metric in self.metrics.items()
        ]
        passed = all(measurement.passed for measurement in measurements)
        return Verdict(passed, measurements, dataset.eval_sha256, checkpoint.lot)

    def judge(self, subject: Checkpoint | Answerer, dataset: Dataset, machine: Machine) -> Mapping[str, float]:
        """Measure something else on the same questions, a packaged file for instance: values by a metric's name."""
        rows = dataset.eval
        if isinstance(subject, Checkpoint):
            found = self._answers(subject, rows, machine, subject.path.name)
        else:
            found = {
                name: subject.answers(
                    rows, max_new_tokens=metric.max_new_tokens, batch_size=metric.batch_size, note=name
                )
                for name, metric in self.metrics.items()
            }
        return {name: metric.score(rows, found[name]).value for name, metric in self.metrics.items()}

    def _measure(
        self, name: str, metric: Metric, rows: Sequence[Row], before: Sequence[str], after: Sequence[str]
    ) -> Measurement:
        base, student = metric.score(rows, before), metric.score(rows, after)
        gate = self.gates.get(name, Gate())
        details = {**student.details, **{f"baseline_{key}": value for key, value in base.details.items()}}
        return Measurement(
            name=name,
            measured=student.value,
            baseline=base.value,
            count=len(rows),
            details=details,
            required=gate.required(),
            passed=gate.passes(student.value, base.value),
            samples=_samples(rows, before, after, base, student),
        )

    def _baseline(
        self, base: BaseModel, rows: Sequence[Row], rows_sha256: str, machine: Machine
    ) -> dict[str, list[str]]:
        """The base's answers; kept in the cache for the same base, questions, settings, code and machine."""
        here = Path(__file__).parent
        key = digest(
            {
                "base": base.sha256,
                "rows": [rows_sha256, digest([dict(row) for row in rows])],
                "metrics": {name: metric.model_dump() for name, metric in self.metrics.items()},
                "machine": machine.describe(),
                "libraries": libraries(),
                "code": digest_file(here / "generate.py") + digest_file(here.parent / "loading.py"),
            }
        )
        path = cache_root() / "baselines" / f"{key}.json"
        if path.is_file():
            return _read(path)
        found = self._ask(base.path, None, rows, machine, "baseline")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
        return found

    def _answers(
        self, checkpoint: Checkpoint, rows: Sequence[Row], machine: Machine, note: str
    ) -> dict[str, list[str]]:
        adapter = checkpoint.path if checkpoint.kind == "adapter" else None
        return self._ask(checkpoint.base.path if adapter else checkpoint.path, adapter, rows, machine, note)

    def _ask(
        self, folder: Path, adapter: Path | None, rows: Sequence[Row], machine: Machine, note: str
    ) -> dict[str, list[str]]:
        from foundry.examine.generate import answers
        from foundry.loading import load_model, load_tokenizer, quiet

        quiet()
        tokenizer = load_tokenizer(adapter or folder)
        model = load_model(folder, machine, adapter)
        return {
            name: answers(
                model,
                tokenizer,
                rows,
                machine,
                max_new_tokens=metric.max_new_tokens,
                batch_size=metric.batch_size,
                note=f"{note} {name}",
            )
            for name, metric in self.metrics.items()
        }


def _read(path: Path) -> dict[str, list[str]]:
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {name: list(texts) for name, texts in found.items()}


def _samples(
    rows: Sequence[Row], before: Sequence[str], after: Sequence[str], base: Score, student: Score
) -> list[Sample]:
    """Some of what changed for better and for worse, and of what did not change."""
    kinds = [(False, True), (True, False), (False, False), (True, True)]
    groups = [[i for i in range(len(rows)) if (base.right[i], student.right[i]) == kind] for kind in kinds]
    share = SAMPLES // len(kinds)
    chosen = [i for group in groups for i in group[:share]]
    return [
        Sample(
            question=str(rows[i]["prompt"][-1]["content"]),
            expected=str(rows[i]["completion"][-1]["content"]),
            before=before[i],
            after=after[i],
            before_right=base.right[i],
            after_right=student.right[i],
        )
        for i in chosen
    ]
