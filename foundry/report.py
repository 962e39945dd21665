"""The page about a run: one HTML file that needs no script and no outside resource.

Numbers, words and geometry are worked out here; the markup is report.html.j2.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from foundry import __version__
from foundry.charts import BOTTOM, LEFT, RIGHT, TOP, draw_bars, draw_curve, draw_nearness, read_losses
from foundry.deliverables import NOTHING, TESTED, Package, beside_student, listed, tested
from foundry.records import (
    Checkpoint,
    Dataset,
    Decontamination,
    Finding,
    Group,
    Measurement,
    Pruned,
    Row,
    Sample,
    Verdict,
)
from foundry.retention import retention
from foundry.run import write_atomic
from foundry.words import (
    fact,
    headline,
    interval,
    is_share,
    minus,
    number,
    plain,
    precision,
    required,
    short,
    show,
    signed,
    status,
)

SHOWN = 5
"""How many removed rows, quarantined rows and sample answers the page shows."""

FOUND = 20
"""How many overlaps with evaluation rows the page shows."""

_KINDS = {
    "newly right": (False, True),
    "still wrong": (False, False),
    "newly wrong": (True, False),
    "still right": (True, True),
}
_DEGREES = {"better": (False, True), "the same": (False, False), "worse": (True, False), "both": (True, True)}
"""Kinds of change where answers are not right or wrong, the better one being marked."""


def write(
    run_dir: Path,
    settings: Mapping[str, Any],
    dataset: Dataset | None,
    pruned: Pruned | None,
    checkpoint: Checkpoint,
    verdict: Verdict,
    package: Package = NOTHING,
    release_uri: str | None = None,
) -> Path:
    """Write report.html into the run directory, whose metrics.jsonl gives the loss curve.

    `settings` is the resolved config; a merge has no rows that it learnt from, and one that is not examined no rows at
    all; `package` is what was made of the checkpoint; `release_uri` says where the model was published, if that is
    known.
    """
    losses = read_losses(run_dir / "metrics.jsonl")
    text = render(
        "report.html.j2",
        run="/".join(run_dir.absolute().parts[-2:]),
        settings_text=yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True),
        job_id=settings["job_id"],
        dataset=dataset,
        pruned=pruned,
        removed=sorted(pruned.removed, key=lambda row: row.similarity)[:SHOWN] if pruned else [],
        quarantined=_quarantined(dataset) if dataset else [],
        counts=_counts(dataset, pruned) if dataset else [],
        checkpoint=checkpoint,
        verdict=verdict,
        status=status(verdict),
        nearness=pruned.nearness if pruned else None,
        groups=groups(dataset, pruned) if dataset and pruned else [],
        overlap=verdict.decontamination,
        curve=draw_curve(losses) if losses else None,
        area=(LEFT, RIGHT, TOP, BOTTOM),
        package=package,
        TESTED=TESTED,
        release_uri=release_uri,
        version=__version__,
    )
    path = run_dir / "report.html"
    write_atomic(path, text)
    return path


def _quarantined(dataset: Dataset) -> list[tuple[str, str]]:
    return [(f"{Path(row.source).name}:{row.line}", row.reason) for row in dataset.quarantined[:SHOWN]]


def _counts(dataset: Dataset, pruned: Pruned | None) -> list[tuple[str, int]]:
    """How many rows went where."""
    learnt = [("kept for training", len(pruned.rows)), ("removed", len(pruned.removed))] if pruned else []
    return [*learnt, ("held out to examine", len(dataset.eval)), ("quarantined", len(dataset.quarantined))]


def render(template: str, **facts: Any) -> str:
    """Fill a template of this package; one that ends in .html.j2 escapes every value."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("foundry", ""),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (
        headline,
        show,
        signed,
        interval,
        required,
        number,
        fact,
        plain,
        precision,
        short,
        preview,
        mix,
        compared,
        held,
        capitalised,
        worst,
        draw_bars,
        draw_nearness,
        beside_student,
        tested,
        listed,
    )
    environment.filters.update({function.__name__: function for function in filters})
    return environment.get_template(template).render(facts)


def preview(row: Row) -> str:
    """The words of a row on one line, whatever its shape: what is asked, then what is answered."""
    parts = (_words(row.get(key, "")) for key in ("text", "prompt", "completion", "chosen"))
    return " → ".join(part for part in parts if part)


def _words(part: Any) -> str:
    texts = [part] if isinstance(part, str) else [str(m["content"]) for m in part if m["role"] != "system"]
    return " ".join(" ".join(texts).split())


def groups(dataset: Dataset, pruned: Pruned) -> list[tuple[Group, Row, Row]]:
    """The largest groups of rows taken together: what stands for each, and the row least like it."""
    least: dict[int, Row] = {}
    for one in sorted(pruned.removed, key=lambda row: -row.similarity):
        if not one.reference:
            least[one.representative] = one.row
    largest = pruned.nearness.largest if pruned.nearness else ()
    return [(group, dataset.train[group.representative], least[group.representative]) for group in largest]


def worst(overlap: Decontamination) -> list[Finding]:
    """The findings that cover most of their evaluation row, as many as the page shows."""
    return sorted(overlap.findings, key=lambda found: (-found.coverage, found.train))[:FOUND]


def mix(samples: Sequence[Sample], judged: bool = True) -> list[tuple[str, Sample]]:
    """Choose samples of every kind, those that were right before and after only to fill up; each with its kind."""
    kinds = _KINDS if judged else _DEGREES
    heaps = [
        [(kind, sample) for sample in samples if (sample.before_right, sample.after_right) == outcome]
        for kind, outcome in kinds.items()
    ]
    told = [one for layer in zip_longest(*heaps[:3]) for one in layer if one]
    return sorted((told + heaps[3])[:SHOWN], key=lambda one: list(kinds).index(one[0]))


def held(measurement: Measurement) -> list[tuple[str, str]]:
    """What the gate looked at: the gain, its interval, what was required, and each parent of a merge."""
    unit = " points" if is_share(measurement) else ""
    label = "Change" if measurement.lower_is_better else "Gain"
    rows = [(label, f"{signed(measurement, measurement.gain)}{unit}")]
    rows += [("95 % interval", interval(measurement))] if measurement.interval else []
    rows += [("Required", required(measurement))]
    rows += [(f"Parent {name}", show(measurement, value)) for name, value in measurement.parents.items()]
    kept = retention(measurement)
    return rows if kept is None else [*rows, ("Kept of the best parent's gain", minus(f"{100 * kept:.0f} %"))]


def capitalised(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def compared(measurement: Measurement) -> list[tuple[str, str, str]]:
    """The details as rows of name, baseline, student: `baseline_x` beside `x`; an int is a count, not a share."""
    details = {
        name: f"{100 * value:.1f} %" if isinstance(value, float) and 0 <= value <= 1 else number(value)
        for name, value in measurement.details.items()
    }
    names = dict.fromkeys(name.removeprefix("baseline_") for name in details)
    return [(plain(name), details.get(f"baseline_{name}", ""), details.get(name, "")) for name in names]
