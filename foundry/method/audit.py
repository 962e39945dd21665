"""The mask audit: what the first batch trains and what it hides, read back from its tokens."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from foundry.method.tokens import MASKED, Tokens, sides


def mask_audit(rows: Sequence[Tokens], tokenizer: Any) -> str:
    """Show each sequence of a batch as stretches that are trained or masked, as a person can check them."""
    found = [(row["row"], *side) for row in rows for side in sides(row)]
    tokens = sum(len(ids) for _, _, ids, _ in found)
    trained = sum(label != MASKED for *_, labels in found for label in labels)
    head = f"first batch: {len(rows)} rows, {tokens} tokens, {trained} of them trained ({trained / tokens:.1%})"
    lines = [head]
    for index, name, ids, labels in found:
        lines += ["", f"{name} {index}" if name == "row" else f"row {index}, {name}"]
        lines += [f"  {kind:<7} {text}" for kind, text in _stretches(ids, labels, tokenizer)]
    return "\n".join(lines) + "\n"


def _stretches(ids: Sequence[int], labels: Sequence[int], tokenizer: Any) -> Iterator[tuple[str, str]]:
    for masked, group in groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] == MASKED):
        text = tokenizer.decode([token for token, _ in group])
        yield "masked" if masked else "trained", repr(text)
