"""eval_log.md: every step from the base to each file, with what was measured before and after it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foundry.hardware import size
from foundry.package.parity import Agreement, Bounds
from foundry.records import Checkpoint, Verdict

_ABOUT = """Each step is compared with the student, the adapter on its base in fp32: the divergence of its next-token
distribution (at least; llama.cpp tells the likeliest tokens one by one), the share of places where the same token is
likeliest, the share of prompts answered alike. The scores are the examination's; files were asked in llama.cpp through
its chat route, the others in transformers.
"""
LARGE = 10**9
"""Parameters from which on a file must be smaller by as much as its bounds say."""


def unmet(steps: Sequence[Agreement], bounds: Mapping[str, Bounds], full: int, parameters: int) -> str:
    """Say at which step the first difference arose that is not allowed; nothing if there is none.

    Args:
        steps: The student first, then each step in its order.
        bounds: What each step must reach, by its name.
        full: Bytes of the 16-bit file.
        parameters: Of the model.
    """
    student = steps[0]
    for step in steps[1:]:
        asked = bounds.get(step.step, Bounds())
        wrong = [*_unlike(step, student, asked), *_failed(step)]
        if asked.smaller is not None and parameters >= LARGE and 1 - step.size / full < asked.smaller:
            wrong.append(f"{_percent(1 - step.size / full)} smaller, required {_percent(asked.smaller)}")
        if wrong:
            return (
                f"package: {step.step}: {'; '.join(wrong)}; the difference arose between {step.after} and {step.step}"
            )
    return ""


def _unlike(step: Agreement, student: Agreement, asked: Bounds) -> Iterator[str]:
    if not step.same_prompts:
        yield step.note
    if asked.kl is not None and step.kl > asked.kl:
        yield f"divergence {step.kl:.2g} nats, at most {asked.kl:g} allowed"
    if asked.top1 is not None and step.top1 < asked.top1:
        yield f"{_percent(step.top1)} of the likeliest tokens as the student's, required {_percent(asked.top1)}"
    if asked.answers is not None and step.answers < asked.answers:
        yield f"{_percent(step.answers)} of the answers as the student's, required {_percent(asked.answers)}"
    for name, value in step.metrics.items():
        if asked.drop is not None and student.metrics.get(name, value) - value > asked.drop + 1e-9:
            yield f"{name} {_percent(value)}, the student has {_percent(student.metrics[name])}"


def _failed(step: Agreement) -> Iterator[str]:
    for test in step.tests:
        if not test.passed:
            yield f"{test.name}: {test.found}, required: {test.required}"


def log(
    checkpoint: Checkpoint, verdict: Verdict, steps: Sequence[Agreement], full: int, notes: Sequence[str], reason: str
) -> str:
    """The page as Markdown."""
    names = [measurement.name for measurement in verdict.measurements]
    head = [
        "step",
        "size",
        "smaller than 16 bits",
        "made in",
        "divergence (nats)",
        "likeliest token",
        "answers",
        *names,
    ]
    baseline: list[str] = [_value(m.baseline) for m in verdict.measurements]
    rows = [["untouched base", *["–"] * 6, *baseline], *(_row(step, full, names) for step in steps)]
    said = f"**Not met**: {reason}" if reason else "**Passed**: every step answers as its bounds ask."
    parts = [
        f"# From {checkpoint.base.name} to files\n\nLot `{checkpoint.lot}`. {said}\n",
        _ABOUT,
        _table(head, rows),
        *(f"- {step.step}: {step.note}" for step in steps if step.note),
        *(f"- {note}" for note in notes),
        "",
        *_deployment(steps),
    ]
    return "\n".join(parts)


def _row(step: Agreement, full: int, names: Sequence[str]) -> list[str]:
    first = not step.places
    weight = [size(step.size), _percent(1 - step.size / full)] if step.size else ["–", "–"]
    likeness = (
        ["–"] * 3 if first else [f"{step.kl:.2g}", f"{_percent(step.top1)} of {step.places}", _percent(step.answers)]
    )
    took = f"{step.seconds:.1f} s" if step.seconds else "–"
    return [step.step, *weight, took, *likeness, *(_value(step.metrics.get(name)) for name in names)]


def _deployment(steps: Sequence[Agreement]) -> Iterator[str]:
    for step in steps:
        if step.tests:
            rows = [[t.name, t.found, t.required or "–", "yes" if t.passed else "**no**"] for t in step.tests]
            yield f"## {step.step} as a service\n"
            yield "llama.cpp's OpenAI-compatible server on loopback.\n"
            yield _table(["test", "found", "required", "holds"], rows)
            yield ""


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _value(value: float | None) -> str:
    if value is None:
        return "–"
    return _percent(value) if 0 <= value <= 1 else f"{value:.4g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
