"""The frozen records that the stages hand on; each carries the hashes of what it was made from.

Release → Verdict → Checkpoint → Pruned → Dataset is the provenance chain.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Row = Mapping[str, Any]
"""One row. instruction: `prompt` and `completion` (lists of `{role, content}` messages); text: `text`."""

Shape = Literal["instruction", "preference", "text"]

_REMEDY = {
    "preference": "give a file of rows with prompt, chosen and rejected (data=files data.path=…), "
    "or learn the answers alone with method=lora, dora, qlora or full",
    "instruction": "give a file of rows with prompt and completion, or of messages (data=files data.path=…)",
}


def wrong_shape(name: str, found: Shape, wanted: frozenset[Shape]) -> str:
    """What to say of rows that a method cannot learn from, and how to get the right ones."""
    first = "preference" if "preference" in wanted else "instruction"
    return (
        f"data: {name} has {found} rows; this method learns from {' or '.join(sorted(wanted))} rows: "
        f"{_REMEDY[first]}; docs/data.md shows the formats"
    )


@dataclass(frozen=True)
class Quarantined:
    """A row that could not be used: where it stood and why it was set aside."""

    source: str
    line: int
    reason: str


@dataclass(frozen=True)
class Dataset:
    """The rows of a job. The digests cover canonical rows and do not depend on their order.

    `parents` are the lots of the curated sets that they come from.
    """

    name: str
    shape: Shape
    train: Sequence[Row]
    eval: Sequence[Row]
    sha256: str
    eval_sha256: str
    quarantined: Sequence[Quarantined] = ()
    notes: Sequence[str] = ()
    parents: Sequence[str] = ()


@dataclass(frozen=True)
class Removed:
    """A row that was taken out, with the row that stands for it and their similarity (0 to 1).

    `representative` is a training row; where `reference` names an evaluation set, it is a row of that set.
    """

    index: int
    representative: int
    similarity: float
    row: Row
    reference: str = ""


@dataclass(frozen=True)
class Group:
    """A row that stands for others: where it stands in the data set, how many rows the group has, the least similar."""

    representative: int
    size: int
    lowest: float


@dataclass(frozen=True)
class Nearness:
    """How near the rows of a data set are to each other, where vectors were compared.

    Attributes:
        threshold: The similarity above which rows were taken together.
        histogram: Lower and upper bound, and how many of the different rows have their nearest other row there.
        removals: Thresholds, and how many rows each would remove, exact repeats included.
        largest: The largest groups, the largest first.
    """

    threshold: float
    histogram: Sequence[tuple[float, float, int]]
    removals: Sequence[tuple[float, int]]
    largest: Sequence[Group]


@dataclass(frozen=True)
class Pruned:
    """The rows kept for training and those removed; `sha256` covers the rows kept."""

    rows: Sequence[Row]
    removed: Sequence[Removed]
    sha256: str
    dataset_sha256: str
    nearness: Nearness | None = None


@dataclass(frozen=True)
class Curated:
    """A curated set on disk: where it is, its lot, the SHA-256 of its rows and of each of its shards, and its counts.

    `rows` and `held_out` are the numbers of training and held-out rows; `path` is None where nothing was written.
    """

    path: Path | None
    rows: int
    held_out: int
    sha256: str
    eval_sha256: str
    dataset_sha256: str
    lot: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BaseModel:
    """A base model on disk: a folder with safetensors weights, config, tokenizer and chat template.

    Attributes:
        name: The name that people know it by; what adapters write as their base.
        path: The local folder.
        files: SHA-256 of each file, by relative path.
        sha256: One digest over `files`.
        parameters: Number of parameters.
    """

    name: str
    path: Path
    files: Mapping[str, str]
    sha256: str
    parameters: int


@dataclass(frozen=True)
class Fusion:
    """How a checkpoint was fused from parents.

    Attributes:
        method: The recipe's name, such as `dare_ties`.
        names: What the parents are called.
        lots: Each parent's lot number; of one without a lot, the SHA-256 of its files.
        kinds: Whether each is an adapter or a full model.
        settings: Each parent's own settings, such as its weight.
    """

    method: str
    names: Sequence[str]
    lots: Sequence[str]
    kinds: Sequence[str]
    settings: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A trained or fused adapter or full model on disk, with its final metrics and its lot number.

    `pruned_sha256` is the digest of the rows that it learnt from, empty for a merge, which has a `fusion` instead;
    `files` the SHA-256 of each of its files, where they were digested before it appeared; `backend` is what computed
    its training steps; `quantized` how its base was held while it was trained: `nf4`, `stored` for a base that has
    4-bit weights itself, empty for whole precision, or where nothing tells.
    """

    path: Path
    kind: Literal["adapter", "full"]
    base: BaseModel
    metrics: Mapping[str, float]
    pruned_sha256: str
    lot: str = ""
    fusion: Fusion | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    backend: str = "peft"
    quantized: str = ""


@dataclass(frozen=True)
class Sample:
    """One examined question: what the baseline and the student said, and whether the metric took it as right."""

    question: str
    expected: str
    before: str
    after: str
    before_right: bool
    after_right: bool


@dataclass(frozen=True)
class Measurement:
    """One metric: the student beside the baseline, and what the gate asked of it.

    Attributes:
        name: The metric's name.
        measured: The student's value (0 to 1 for scores).
        baseline: The baseline's value, measured by the same code on the same questions.
        count: Number of questions.
        details: Whatever explains the value, for instance the majority rate.
        required: The gate's bounds, empty where there is no gate.
        passed: Whether every bound holds.
        samples: Questions with both answers.
        interval: Lower and upper end of the gain's 95 % interval, None where none can be given.
        parents: What each of a merge's parents reaches, by its name.
        lower_is_better: Whether a low value is a good one.
        judged: Whether answers are right or wrong; if not, samples are marked by which answer is better.
        questions_sha256: SHA-256 of the questions.
        note: What else is to be said, for instance that there were too few questions to tell.
    """

    name: str
    measured: float
    baseline: float
    count: int
    details: Mapping[str, float] = field(default_factory=dict)
    required: Mapping[str, float] = field(default_factory=dict)
    passed: bool = True
    samples: Sequence[Sample] = ()
    interval: tuple[float, float] | None = None
    parents: Mapping[str, float] = field(default_factory=dict)
    lower_is_better: bool = False
    judged: bool = True
    questions_sha256: str = ""
    note: str = ""

    @property
    def gain(self) -> float:
        """How far the student is above the baseline; where lower is better, a good one is below 0."""
        return self.measured - self.baseline


@dataclass(frozen=True)
class Finding:
    """A training row and the evaluation row that it overlaps most.

    Attributes:
        train: The training row's index.
        reference: The evaluation set.
        evaluation: The evaluation row's index in it.
        text: The longest stretch of shared words, normalised and perhaps cut short.
        ngrams: Shared n-grams, counted at their places in the evaluation row; 0 where rows were compared whole.
        coverage: Share of the own words of the evaluation prompt or text that these cover (0 to 1).
    """

    train: int
    reference: str
    evaluation: int
    text: str
    ngrams: int
    coverage: float


@dataclass(frozen=True)
class Decontamination:
    """What was compared and found: the action taken, n, rows of each evaluation set, training rows, findings."""

    action: Literal["drop", "fail", "report"]
    n: int
    references: Mapping[str, int]
    rows: int
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Verdict:
    """The outcome of the examination; a publisher refuses a checkpoint whose verdict has not passed."""

    passed: bool
    measurements: Sequence[Measurement]
    eval_sha256: str
    lot: str
    examined: bool = True
    decontamination: Decontamination | None = None


class Answerer(Protocol):
    """Anything that answers questions: a model in transformers, a file in llama.cpp."""

    def answers(self, rows: Sequence[Row], *, max_new_tokens: int, batch_size: int, note: str) -> list[str]:
        """Answer each row's prompt greedily, one text for each, in their order."""


Judge = Callable[[Checkpoint | Answerer], Mapping[str, float]]
"""Measures something with the examination's metrics, on its questions: values by a metric's name."""


@dataclass(frozen=True)
class Release:
    """Where the checkpoint went.

    Attributes:
        uri: What `foundry verify` takes.
        tag: Its tag.
        lot: The lot number.
        digest: The digest of its `release.json`.
        files: SHA-256 of every file of it, by relative path.
        verdict: The verdict that let it pass.
        checkpoint: What was published.
        fresh: Whether this job made it, or it was there already.
        removed: Files of the run directory that are now only there.
        notice: What became of the notice about it; empty where none was asked for.
    """

    uri: str
    tag: str
    lot: str
    digest: str
    files: Mapping[str, str]
    verdict: Verdict
    checkpoint: Checkpoint
    fresh: bool = True
    removed: Sequence[str] = ()
    notice: str = ""


def plain(record: Any) -> Any:
    """Turn a record into plain JSON types, paths as strings."""

    def simple(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Mapping):
            return {str(k): simple(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [simple(v) for v in value]
        return value

    return simple(asdict(record))
