"""The life of a model as a picture, drawn from what its run recorded: what flowed, how many rows, which lots."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from foundry.config import TARGET
from foundry.deliverables import Agreement, Examined
from foundry.hardware import size
from foundry.lot import LOT, SHORT

NAMES = ("lifecycle.svg", "lifecycle.png")
_WIDE, _HIGH, _GAP = 2.3, 1.9, 0.75
_INK, _EDGE, _FILL, _FAILED = "#1f2933", "#3e7cb1", "#eef4f9", "#fbeaea"


@dataclass(frozen=True)
class Box:
    """A stage: its name, what it did line by line, what it hands on, and whether it went well."""

    title: str
    lines: Sequence[str]
    hands_on: str = ""
    good: bool = True


def stages(examined: Examined, steps: Sequence[Agreement], passed: bool) -> list[Box]:
    """The stages of a run in their order, read from its records.

    Args:
        examined: The student and its job.
        steps: The steps of the packaging.
        passed: Whether these are all as they must be.
    """
    run_dir, learnt = examined.run_dir, len(examined.learnt)
    settings = yaml.safe_load((run_dir / "manifest.yaml").read_text(encoding="utf-8"))
    lot = json.loads((run_dir / LOT).read_text(encoding="utf-8"))
    removed = [json.loads(line) for line in _lines(run_dir / "removed.jsonl")]
    overlaps = sum(bool(row.get("reference")) for row in removed)
    rows = lot["contents"]["dataset"]
    boxes = []
    if learnt:
        quarantined = len(_lines(run_dir / "quarantine.jsonl"))
        boxes = [
            Box(
                "select",
                [_kind(settings, "data"), f"{quarantined:,} quarantined", f"rows {_short(rows.get('train'))}"],
                f"{learnt + len(removed):,} rows",
            ),
            Box(
                "prune",
                [
                    _kind(settings, "prune"),
                    f"{len(removed) - overlaps:,} repeats removed",
                    f"{overlaps:,} overlaps dropped",
                    f"rows {_short(rows.get('pruned'))}",
                ],
                f"{learnt:,} rows",
            ),
        ]
    base = [str(lot["contents"]["base"].get("name", "")).rsplit("/", 1)[-1]]
    parents = [f"from lot {_short(parent)}" for parent in lot["contents"].get("parents", ())][:2]
    fusion = examined.checkpoint.fusion
    title, made = ("train", _kind(settings, "method")) if learnt else ("model", "as it was")
    title, made = ("merge", fusion.method) if fusion else (title, made)
    boxes.append(Box(title, [made, *base, *parents, f"lot {_short(lot['lot'])}"], "student"))
    boxes.append(_examination(run_dir, len(examined.held_out)))
    files = [f"{step.step} · {size(step.size)}" for step in steps if step.size]
    return [*boxes, Box("package", ["gate passed" if passed else "gate not met", *files][:5], good=passed)]


def _examination(run_dir: Path, held_out: int) -> Box:
    verdict = json.loads((run_dir / "verdict.json").read_text(encoding="utf-8"))
    if not verdict["examined"]:
        return Box("examine", ["not examined"], "student")
    scores = [f"{m['name']} {m['baseline']:.3g} → {m['measured']:.3g}" for m in verdict["measurements"][:3]]
    words = "passed" if verdict["passed"] else "failed"
    return Box("examine", [f"{held_out:,} held-out rows", *scores, words], "verdict", verdict["passed"])


def draw(boxes: Sequence[Box], title: str, folder: Path) -> None:
    """Write the picture as SVG and PNG into a folder."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    width = len(boxes) * _WIDE + (len(boxes) - 1) * _GAP
    with mpl.rc_context({"svg.hashsalt": "foundry", "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(width + 0.4, _HIGH + 0.9))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(-0.2, width + 0.2)
        axes.set_ylim(-0.2, _HIGH + 0.7)
        axes.axis("off")
        axes.text(0, _HIGH + 0.38, title, fontsize=10, color=_INK, weight="bold")
        for number, box in enumerate(boxes):
            left = number * (_WIDE + _GAP)
            shape = FancyBboxPatch(
                (left, 0), _WIDE, _HIGH, boxstyle="round,pad=0,rounding_size=0.08", linewidth=1.2,
                facecolor=_FILL if box.good else _FAILED, edgecolor=_EDGE if box.good else "#b13e3e",
            )  # fmt: skip
            axes.add_patch(shape)
            axes.text(left + 0.12, _HIGH - 0.3, box.title, fontsize=11, weight="bold", color=_EDGE)
            for row, line in enumerate(box.lines[:5]):
                axes.text(left + 0.12, _HIGH - 0.63 - 0.27 * row, _fit(line), fontsize=7.5, color=_INK)
            if number + 1 < len(boxes):
                start, end = left + _WIDE + 0.05, left + _WIDE + _GAP - 0.05
                axes.annotate("", (end, _HIGH / 2), (start, _HIGH / 2), arrowprops={"arrowstyle": "-|>", "color": _INK})
                axes.text((start + end) / 2, _HIGH / 2 + 0.1, box.hands_on, fontsize=7, ha="center", color=_INK)
        for name in NAMES:
            figure.savefig(folder / name, dpi=160, metadata={"Date": None} if name.endswith("svg") else None)


def _fit(line: str, most: int = 33) -> str:
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _kind(settings: Mapping[str, Any], group: str) -> str:
    """A component's module, as people choose it, with what they tell it apart by."""
    node = settings.get(group)
    if not isinstance(node, Mapping):
        return group
    name = str(node.get(TARGET, f"{group}.{group}")).split(".")[-2]
    adapter = node.get("adapter")
    if isinstance(adapter, Mapping):
        return f"{name}, {'DoRA' if adapter.get('dora') else 'LoRA'} rank {adapter.get('rank')}"
    told = node.get("task") or node.get("path") or node.get("threshold")
    return f"{name} {str(told).rsplit('/', 1)[-1]}" if told else name


def _short(digest: Any) -> str:
    return str(digest)[:SHORT] if digest else "–"


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
