"""eval_log.md: every step from the base to each file, with what was measured before and after it."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from foundry.card import escape
from foundry.deliverables import TESTED, Agreement, Package, beside_student, percent, tested
from foundry.package.parity import Bounds
from foundry.records import Checkpoint, Verdict

_ABOUT = """Each step is compared with the student, the adapter on its base in fp32: the divergence of its next-token
distribution (at least; llama.cpp tells the likeliest tokens one by one), the share of places where the same token is
likeliest, the share of prompts answered alike. The scores are the examination's; files were asked in llama.cpp through
its chat route, the others in transformers.
"""
_SERVED = "## As a service\n\nEach file in llama.cpp's OpenAI-compatible server on loopback.\n"
LARGE = 10**9
"""Parameters from which on a file must be smaller by as much as its bounds say."""


def unmet(
    steps: Sequence[Agreement], bounds: Mapping[str, Bounds], full: int, parameters: int, low: Collection[str] = ()
) -> str:
    """Say at which step the first difference arose that is not allowed; nothing if there is none.

    Args:
        steps: The student first, then each step in its order.
        bounds: What each step must reach, by its name.
        full: Bytes of the 16-bit file.
        parameters: Of the model.
        low: The scores of which a low one is a good one.
    """
    student = steps[0]
    for step in steps[1:]:
        asked = bounds.get(step.step, Bounds())
        wrong = [*_unlike(step, asked), *_worse(step, student, asked, low), *_failed(step)]
        if asked.smaller is not None and parameters >= LARGE and 1 - step.size / full < asked.smaller:
            wrong.append(f"{percent(1 - step.size / full)} smaller, required {percent(asked.smaller)}")
        if wrong:
            return (
                f"package: {step.step}: {'; '.join(wrong)}; the difference arose between {step.after} and {step.step}"
            )
    return ""


def _unlike(step: Agreement, asked: Bounds) -> Iterator[str]:
    if not step.same_prompts:
        yield step.note
    if asked.kl is not None and step.kl > asked.kl:
        yield f"divergence {step.kl:.2g} nats, at most {asked.kl:g} allowed"
    if asked.top1 is not None and step.top1 < asked.top1:
        yield f"{percent(step.top1)} of the likeliest tokens as the student's, required {percent(asked.top1)}"
    if asked.answers is not None and step.answers < asked.answers:
        yield f"{percent(step.answers)} of the answers as the student's, required {percent(asked.answers)}"


def _worse(step: Agreement, student: Agreement, asked: Bounds, low: Collection[str]) -> Iterator[str]:
    for name, value in step.metrics.items():
        lost = student.metrics.get(name, value) - value
        if asked.drop is not None and (-lost if name in low else lost) > asked.drop + 1e-9:
            yield f"{name} {percent(value)}, the student has {percent(student.metrics[name])}"


def _failed(step: Agreement) -> Iterator[str]:
    for test in step.tests:
        if not test.passed:
            yield f"{test.name}: {test.found}, required: {test.required}"


def log(package: Package, checkpoint: Checkpoint, verdict: Verdict) -> str:
    """The page as Markdown."""
    said = f"**Not met**: {package.unmet}" if package.unmet else "**Passed**: every step answers as its bounds ask."
    parts = [
        f"# From {checkpoint.base.name} to files\n\nLot `{checkpoint.lot}`. {said}\n",
        _ABOUT,
        _table(*beside_student(package, verdict)),
        *(f"- {step.step}: {escape(step.note)}" for step in package.steps if step.note),
        *(f"- {escape(note)}" for note in package.notes),
        "",
        *_services(package),
    ]
    return "\n".join(parts)


def _services(package: Package) -> Iterator[str]:
    tests = tested(package)
    if tests:
        yield _SERVED
        yield _table(TESTED, [list(map(escape, row)) for row in tests])
        yield ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])
