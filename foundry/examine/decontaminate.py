"""What is done about training rows that overlap evaluation rows, and evaluation rows read from files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from foundry.errors import DataError
from foundry.examine.ngrams import passages
from foundry.examine.overlap import Reference, find
from foundry.records import Decontamination, Finding, Pruned, Removed, Row
from foundry.rows import Rows

Action = Literal["drop", "fail", "report"]


def decontaminate(
    pruned: Pruned,
    references: Sequence[Reference],
    action: Action = "drop",
    n: Literal[8, 13] = 13,
) -> tuple[Pruned, Decontamination]:
    """Compare the rows kept for training with the evaluation rows; findings give rows as they were before pruning.

    Returns:
        The rows to train on and what was found. `drop` removes each overlapping row: its `Removed` has the
        evaluation row as representative and the coverage as similarity.

    Raises:
        DataError: Something was found and `action` is `fail`, or nothing would be left.
    """
    gone = {removed.index for removed in pruned.removed}
    kept = [i for i in range(len(pruned.rows) + len(gone)) if i not in gone]
    local = find(pruned.rows, references, n)
    findings = [replace(finding, train=kept[finding.train]) for finding in local]
    sizes = {reference.name: len(reference.rows) for reference in references}
    outcome = Decontamination(action, n, sizes, len(kept), findings)
    if not findings or action == "report":
        return pruned, outcome
    first = f"{_said(findings[0])}; the first of {len(findings):,} of {len(kept):,} rows"
    if action == "fail":
        raise DataError(f"examine.decontaminate=fail: {first} (drop leaves them out, report only says so)")
    if len(findings) == len(kept):
        raise DataError(f"examine.decontaminate=drop would leave no training row: {first}")
    dropped = {finding.train for finding in local}
    rows = Rows.of(pruned.rows).select([i for i in range(len(kept)) if i not in dropped])
    removed = [
        Removed(kept[found.train], found.evaluation, found.coverage, pruned.rows[found.train], found.reference)
        for found in local
    ]
    return replace(pruned, rows=rows, removed=[*pruned.removed, *removed], sha256=rows.sha256()), outcome


def _said(found: Finding) -> str:
    return (
        f'training row {found.train} shares "{found.text}" with row {found.evaluation} of {found.reference} '
        f"({found.ngrams} n-grams, {100 * found.coverage:.0f} % of its own words)"
    )


def read(path: Path) -> Reference:
    """Read evaluation rows: a JSON object a line from `*.jsonl`, a text a line from any other file.

    Raises:
        DataError: It cannot be read, or a line has no `prompt`, `messages`, `question`, `instruction` or `text`.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"examine.decontaminate_against: {path}: {error}; expected a JSONL or text file") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if path.suffix != ".jsonl":
        return Reference(str(path), [{"text": line} for _, line in numbered])
    rows = []
    for number, line in numbered:
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise DataError(
                f"examine.decontaminate_against: {path}:{number}: expected a JSON object with prompt, messages, "
                "question, instruction or text"
            ) from None
    return Reference(str(path), rows)


def _row(item: Mapping[str, Any]) -> Row:
    """The row in an object; what the task gives beside an instruction belongs to its prompt."""
    if "messages" in item:
        answered = item["messages"][-1]["role"] == "assistant"
        cut = len(item["messages"]) - answered
        row: Row = {"prompt": item["messages"][:cut], "completion": item["messages"][cut:]}
    elif "instruction" in item:
        row = {"prompt": f"{item['instruction']}\n{item.get('input') or ''}", "completion": item.get("output") or ""}
    elif "question" in item:
        row = {"prompt": item["question"], "completion": str(item.get("answer") or "")}
    else:
        row = {key: item[key] for key in ("prompt", "completion", "chosen", "rejected", "text") if key in item}
    if not row or not all(isinstance(text, str) for text in passages(row)):
        raise ValueError
    return row
