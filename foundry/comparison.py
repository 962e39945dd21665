"""Runs side by side: which columns there are, what is best in each, and what cannot be told apart from it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from foundry.hardware import size
from foundry.lot import SHORT
from foundry.runs import TrackedRun
from foundry.sweep import short
from foundry.words import duration, minus, number

_LESS = ("loss", "perplexity", "over_refusal", "forgetting", "seconds", "bytes", "parameters")
"""Names with one of these in them are better when they are lower."""

_PASSING = (
    *("job_id", "dry_run", "resume", "manifest", "publish.", "hydra."),
    *("method._target_", "method.adapter.rank", "method.adapter.dora"),
    *("method.adapter.quantize", "method.adapter.rslora"),
)
"""Settings that columns of their own tell, or that say nothing about what was learnt."""


@dataclass(frozen=True)
class Cell:
    """One figure of one run.

    Attributes:
        value: The figure or word itself, None where there is none.
        text: As people read it.
        best: Whether it is the best of its column.
        near: Whether its interval and that of the best allow that they are equal.
    """

    value: float | str | None
    text: str
    best: bool = False
    near: bool = False


@dataclass(frozen=True)
class Column:
    """A figure of every run, in their order."""

    key: str
    title: str
    cells: Sequence[Cell]

    @property
    def numeric(self) -> bool:
        """Whether it holds figures rather than words."""
        return any(isinstance(cell.value, float) for cell in self.cells)


@dataclass(frozen=True)
class Comparison:
    """Runs and their columns."""

    title: str
    runs: Sequence[TrackedRun]
    scores: Sequence[str]

    @cached_property
    def columns(self) -> list[Column]:
        """What is shown, columns without any figure left out."""
        words = [
            Column("run", "run", [Cell(run.name, run.name) for run in self.runs]),
            Column("method", "method", [Cell(method(run.params), method(run.params)) for run in self.runs]),
            self._figures("rank", "rank", lambda run: _number(run.params.get("method.adapter.rank")), number),
            Column("differs", "differs in", [Cell(text, text) for text in differences(self.runs)]),
            self._metric("eval_loss", "eval loss", number) if "eval_loss" not in self.scores else None,
            *(self._score(name) for name in self.scores),
            Column("verdict", "verdict", [Cell(word, word) for word in map(verdict, self.runs)]),
            self._metric("trainable_parameters", "trained", number),
            self._metric("tokens_per_second", "tokens/s", lambda value: f"{value:,.0f}"),
            self._metric("train_seconds", "time", duration),
            self._metric("peak_memory_bytes", "peak memory", size),
            self._metric("model_bytes", "on disk", size),
            Column("lot", "lot", [Cell(lot, lot) for lot in (run.tags.get("lot", "")[:SHORT] for run in self.runs)]),
        ]
        return [column for column in words if column and any(cell.text for cell in column.cells)]

    def _metric(self, name: str, title: str, say: Callable[[float], str]) -> Column:
        return self._figures(name, title, lambda run: _finite(run.metrics.get(name)), say, best_of=better(name))

    def _figures(
        self,
        key: str,
        title: str,
        take: Callable[[TrackedRun], float | None],
        say: Callable[[float], str],
        best_of: Callable[..., float] | None = None,
    ) -> Column:
        values = [take(run) for run in self.runs]
        known = [value for value in values if value is not None]
        best = best_of(known) if best_of and len(set(known)) > 1 else None
        return Column(
            key,
            title,
            [
                Cell(value, "" if value is None else say(value), best=value is not None and value == best)
                for value in values
            ],
        )

    def _score(self, name: str) -> Column:
        """A metric of the examination, with its baseline and the interval of its gain."""
        plain = self._metric(name, name.replace("_", " "), str)
        best = next((run for run, cell in zip(self.runs, plain.cells, strict=True) if cell.best), None)
        cells = []
        for run, cell in zip(self.runs, plain.cells, strict=True):
            near = best is not None and not cell.best and not apart(run, best, name)
            cells.append(Cell(cell.value, said(run, name), cell.best, near))
        return Column(name, plain.title, cells)

    def column(self, key: str) -> Column | None:
        """The column of this key."""
        return next((column for column in self.columns if column.key == key), None)

    @property
    def noisy(self) -> bool:
        """Whether any figure cannot be told from the best of its column."""
        return any(cell.near for column in self.columns for cell in column.cells)

    def records(self) -> list[dict[str, Any]]:
        """Every run as plain figures, for JSON and CSV: what the columns have, baselines and intervals, and its ids."""
        found = []
        for at, run in enumerate(self.runs):
            record: dict[str, Any] = {"id": run.id}
            record |= {column.key: column.cells[at].value for column in self.columns}
            for name in self.scores:
                low, high = interval(run, name) or (None, None)
                record |= {f"{name}_baseline": run.metrics.get(f"{name}_baseline")}
                record |= {f"{name}_gain_low": low, f"{name}_gain_high": high}
            found.append(record | {"status": run.status, "lot": run.tags.get("lot", "")})
        return found


def marked(cell: Cell) -> str:
    """A cell's text with its mark."""
    return f"* {cell.text}" if cell.best else f"≈ {cell.text}" if cell.near else cell.text


def compare(title: str, runs: Sequence[TrackedRun]) -> Comparison:
    """Put runs side by side; what has a baseline is a metric of the examination."""
    names = {name: None for run in runs for name in run.metrics}
    return Comparison(title, runs, [name for name in names if f"{name}_baseline" in names])


def method(params: Mapping[str, str]) -> str:
    """What people call a method, from the settings that it is made of: `dora`, `orpo`, `dpo dora`, `full`."""
    target = params.get("method._target_", "")
    objective = target.rpartition(".")[2].lower()
    if not target:
        return ""
    adapter = _adapter(params)
    return adapter if objective == "sft" else objective if adapter == "lora" else f"{objective} {adapter}"


def _adapter(params: Mapping[str, str]) -> str:
    if "method.adapter.rank" not in params:
        return "full"
    words = [word for word, key in (("q", "quantize"), ("rs", "rslora")) if _set(params, key)]
    return "".join(words) + ("dora" if _set(params, "dora") else "lora")


def _set(params: Mapping[str, str], key: str) -> bool:
    return params.get(f"method.adapter.{key}", "false") not in {"false", "null"}


def differences(runs: Sequence[TrackedRun]) -> list[str]:
    """For each run, the settings in which it differs from others, those of its other columns aside."""
    keys = sorted({key for run in runs for key in run.params if not key.startswith(_PASSING)})
    varied = [key for key in keys if len({run.params.get(key) for run in runs}) > 1]
    whole = [key for key in varied if key.endswith("._target_")]
    told = [key for key in varied if key in whole or not any(_below(key, one) for one in whole)]
    return [" ".join(_setting(key, run.params[key]) for key in told if key in run.params) for run in runs]


def _below(key: str, target: str) -> bool:
    """Whether a setting belongs to a component that is another one in other runs."""
    return key.startswith(target.removesuffix("_target_"))


def _setting(key: str, value: str) -> str:
    if key.endswith("._target_"):
        return f"{key.removesuffix('._target_')}={value.rpartition('.')[2]}"
    return f"{short(key)}={value if len(value) <= 24 else value[:23] + '…'}"


def verdict(run: TrackedRun) -> str:
    """What came of a run: its verdict, or that it failed, was killed or still goes on."""
    if run.status in {"FAILED", "KILLED"}:
        return run.status.lower()
    return run.tags.get("verdict", "" if run.status == "FINISHED" else run.status.lower())


def interval(run: TrackedRun, name: str) -> tuple[float, float] | None:
    """Lower and upper end of a gain's 95 % interval, None where it was not worked out."""
    low, high = (_finite(run.metrics.get(f"{name}_gain_{end}")) for end in ("low", "high"))
    return (low, high) if low is not None and high is not None else None


def apart(one: TrackedRun, other: TrackedRun, name: str) -> bool:
    """Whether two runs' values differ by more than noise.

    The 95 % intervals of their gains over the same baseline have half widths h₁ and h₂; values that differ by
    more than √(h₁² + h₂²) are apart. The same questions were asked of both, which makes this a careful test.
    """
    spans = [span for run in (one, other) if (span := interval(run, name))]
    if len(spans) < 2 or name not in one.metrics or name not in other.metrics:  # two runs
        return True
    return abs(one.metrics[name] - other.metrics[name]) > math.hypot(*((high - low) / 2 for low, high in spans))


def said(run: TrackedRun, name: str) -> str:
    """A score with its interval and baseline, as in `84.4 % ±4.6 (from 50.0)`."""
    value, before = _finite(run.metrics.get(name)), _finite(run.metrics.get(f"{name}_baseline"))
    if value is None:
        return ""
    span, share = interval(run, name), before is not None and 0 <= value <= 1 and 0 <= before <= 1
    text = minus(f"{100 * value:.1f} %") if share else number(value)
    half = (span[1] - span[0]) / 2 if span else 0.0
    around = f" ±{100 * half:.1f}" if share and span else f" ±{half:.2g}" if span else ""
    return (
        text
        + around
        + ("" if before is None else f" (from {100 * before:.1f})" if share else f" (from {number(before)})")
    )


def better(name: str) -> Callable[..., float]:
    """`min` for what is better when it is lower, such as losses, seconds and bytes; else `max`."""
    return min if any(word in name for word in _LESS) else max


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
