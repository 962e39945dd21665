"""The mask audit: what the first batch trains and what it hides, read back from its tokens."""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Any

from foundry.method.tokens import MASKED, Tokens, sides


def mask_audit(rows: Sequence[Tokens], tokenizer: Any, system: Collection[str]) -> str:
    """Show each sequence of a batch as stretches that are trained or masked, as a person can check them.

    Args:
        rows: The batch.
        tokenizer: What its tokens are read with.
        system: System prompts that the rows brought along; they are left out, for a setting may have taken them
            from the environment, whose values are written nowhere.
    """
    found = [(row["row"], *side) for row in rows for side in sides(row)]
    tokens = sum(len(ids) for _, _, ids, _ in found)
    trained = sum(label != MASKED for *_, labels in found for label in labels)
    head = f"first batch: {len(rows)} rows, {tokens} tokens, {trained} of them trained ({trained / tokens:.1%})"
    lines = [head]
    for index, name, ids, labels in found:
        lines += ["", f"{name} {index}" if name == "row" else f"row {index}, {name}"]
        lines += [f"  {kind:<7} {text}" for kind, text in _stretches(ids, labels, tokenizer, system)]
    return "\n".join(lines) + "\n"


def _stretches(
    ids: Sequence[int], labels: Sequence[int], tokenizer: Any, system: Collection[str]
) -> Iterator[tuple[str, str]]:
    for masked, group in groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] == MASKED):
        text = tokenizer.decode([token for token, _ in group])
        for prompt in filter(None, system):
            text = text.replace(prompt, "(system prompt)")
        yield "masked" if masked else "trained", repr(text)
