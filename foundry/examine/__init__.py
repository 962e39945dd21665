"""Examination: what the student can do that its baseline could not, and whether that is enough."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import PrivateAttr

from foundry.config import Component
from foundry.hardware import Machine
from foundry.records import Answerer, Checkpoint, Dataset, Decontamination, Pruned, Row, Verdict
from foundry.source import Source

__all__ = ["Examiner", "Metric", "Score", "Subject", "Verdict"]


class Examiner(Component, ABC):
    """Judges a checkpoint."""

    examines: ClassVar[bool] = True

    @abstractmethod
    def examine(
        self,
        checkpoint: Checkpoint,
        dataset: Dataset,
        machine: Machine,
        parents: Mapping[str, Checkpoint] | None = None,
    ) -> Verdict:
        """Measure the checkpoint and its baseline.

        Args:
            checkpoint: What is judged.
            dataset: The job's rows; the held-out ones are asked.
            machine: What it is computed on.
            parents: What a merge was made of, by name; each is measured like the checkpoint.

        Raises:
            DataError: The held-out rows do not suit a metric.
            ConfigError: A gate compares with parents, and there are none.
        """

    def judge(
        self,
        subject: Checkpoint | Answerer,  # noqa: ARG002
        dataset: Dataset,  # noqa: ARG002
        machine: Machine,  # noqa: ARG002
    ) -> Mapping[str, float]:
        """Measure something else on the same questions, a packaged file for instance: values by a metric's name."""
        return {}

    def check(self, dataset: Dataset) -> None:
        """Look before training whether the held-out rows can be examined at all.

        Raises:
            DataError: They cannot.
        """

    def needs_parents(self) -> str | None:
        """The gate that can only be held to a merge, by its key; None where every gate suits any checkpoint."""
        return None

    def separate(self, pruned: Pruned, dataset: Dataset) -> tuple[Pruned, Decontamination | None]:  # noqa: ARG002
        """Part the training rows from the evaluation rows; nothing is compared where nothing is examined.

        Raises:
            DataError: They overlap, and that is not allowed; or an evaluation file cannot be read.
        """
        return pruned, None


def unexamined(checkpoint: Checkpoint, dataset: Dataset) -> Verdict:
    """The verdict where nothing is measured; it does not let anything be published."""
    return Verdict(passed=True, measurements=(), eval_sha256=dataset.eval_sha256, lot=checkpoint.lot, examined=False)


@dataclass(frozen=True)
class Score:
    """What a metric found, question by question.

    Attributes:
        items: The value of each question, (N,); 1 and 0 where answers are right or wrong.
        weights: How much each counts, (N,); empty if all count the same.
        classes: The class of each, (N,): the value is the mean of the classes' means; empty for one class.
        exponential: Whether the value is e to the power of that mean, as a perplexity is.
        details: Numbers that explain the value.
    """

    items: Sequence[float]
    weights: Sequence[float] = ()
    classes: Sequence[str] = ()
    exponential: bool = False
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The metric's value over all questions."""
        weights = self.weights or [1.0] * len(self.items)
        classes = self.classes or [""] * len(self.items)
        sums: dict[str, list[float]] = {}
        for item, weight, name in zip(self.items, weights, classes, strict=True):
            total = sums.setdefault(name, [0.0, 0.0])
            total[0] += weight * item
            total[1] += weight
        mean = sum(top / below for top, below in sums.values()) / len(sums)
        return _exp(mean) if self.exponential else mean

    @property
    def right(self) -> list[bool]:
        """Which answers are wholly right."""
        return [item >= 1 for item in self.items]

    def beyond(self, origin: "Score") -> "Score":
        """How far each question's value is above that of another score on the same questions."""
        return replace(self, items=[own - other for own, other in zip(self.items, origin.items, strict=True)])


def _exp(mean: float) -> float:
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf


class Subject(Protocol):
    """A model that answers questions.

    Attributes:
        folder: Its weights, or those of the base below its adapter.
        adapter: The adapter's folder, None for a model without one.
        held: How the base's weights are held, as in a checkpoint's `quantized`.
        machine: What it is computed on.
    """

    folder: Path
    adapter: Path | None
    held: str
    machine: Machine

    def answers(self, rows: Sequence[Row], *, max_new_tokens: int, batch_size: int, note: str) -> list[str]:
        """Answer each row's prompt greedily."""

    def losses(self, rows: Sequence[Row], *, max_length: int, batch_size: int, note: str) -> list[list[float]]:
        """The summed loss (nats) of each row's answer or text, and how many tokens it has."""


class Metric(Component, ABC):
    """One thing that is measured.

    What a model did is its evidence: plain JSON values, one for each question, which are kept in the cache. A
    score is made from the evidence alone.

    Attributes:
        data: Where its questions come from: the held-out rows, or all rows where none are held out. None asks the
            job's held-out rows.
    """

    lower_is_better: ClassVar[bool] = False
    judged: ClassVar[bool] = True
    """Whether an answer is right or wrong; if not, only better or worse than another one."""
    relative: ClassVar[bool] = False
    """Whether the untouched base's values are taken off, question by question."""
    reads_answers: ClassVar[bool] = True
    """Whether a question's own answer counts; if not, prompts alone are kept apart from training rows."""
    asks_rows: ClassVar[bool] = True
    """Whether the questions are rows; if not, whatever is asked brings its own."""

    data: Source | None = None
    _own: list[Dataset] = PrivateAttr(default_factory=list)

    def own(self) -> Dataset | None:
        """The metric's own questions as a data set, read once; None if it has none.

        Raises:
            DataError: They cannot be read.
        """
        if self.data is not None and not self._own:
            self._own.append(self.data.load())
        return self._own[0] if self._own else None

    def questions(self, dataset: Dataset) -> tuple[Sequence[Row], str]:
        """The rows that are asked, and their SHA-256."""
        own = self.own()
        if own is None:
            return dataset.eval, dataset.eval_sha256
        return (own.eval, own.eval_sha256) if own.eval else (own.train, own.sha256)

    def asked(self, dataset: Dataset) -> Sequence[Row]:
        """What no training row may share: the questions, with their answers where these count."""
        rows, _ = self.questions(dataset)
        return rows if self.reads_answers else [{"prompt": row["prompt"]} for row in rows]

    @abstractmethod
    def check(self, rows: Sequence[Row], name: str) -> None:
        """Look whether these rows can be asked.

        Args:
            rows: The questions.
            name: The metric's key in the config, for messages.

        Raises:
            DataError: They cannot.
            ConfigError: Something that the metric needs is not installed.
        """

    @abstractmethod
    def asking(self) -> Mapping[str, Any]:
        """The settings that the evidence depends on."""

    @abstractmethod
    def ask(self, subject: Subject, rows: Sequence[Row], note: str) -> list[Any]:
        """Put the questions and return the evidence."""

    @abstractmethod
    def score(self, rows: Sequence[Row], evidence: Sequence[Any]) -> Score:
        """Judge the evidence."""

    @abstractmethod
    def told(self, rows: Sequence[Row], evidence: Sequence[Any], index: int) -> tuple[str, str, str]:
        """One question for a person: what is asked, what is expected, what was answered."""
