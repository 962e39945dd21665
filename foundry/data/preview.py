"""What a dry run shows of the rows: how long they are, in tokens."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from foundry.records import Row

SAMPLE = 1000
"""Rows that are measured: sources hand rows on in a drawn order, so the first ones are a sample."""


def token_lengths(rows: Sequence[Row], tokenizer: Any) -> list[int]:
    """Tokens of the first `SAMPLE` rows, as the tokenizer's chat template writes them; of a pair, the longer side."""
    return [max(_length(side, row, tokenizer) for side in _sides(row)) for row in rows[:SAMPLE]]


def _sides(row: Row) -> list[Any]:
    if "text" in row:
        return [row["text"]]
    return [[*row["prompt"], *row[key]] for key in ("completion", "chosen", "rejected") if key in row]


def _length(side: Any, row: Row, tokenizer: Any) -> int:
    if isinstance(side, str) or not tokenizer.chat_template:
        text = side if isinstance(side, str) else "\n".join(message["content"] for message in side)
        return len(tokenizer(text)["input_ids"])
    return len(tokenizer.apply_chat_template(side, tools=row.get("tools"), return_dict=False))


def histogram(lengths: Iterable[int]) -> list[tuple[str, int]]:
    """Count lengths in bins that double.

    Returns:
        Each bin's bounds, such as `65–128`, and its count, from the shortest to the longest length found.
    """
    bins = Counter(max(length - 1, 0).bit_length() for length in lengths)
    if not bins:
        return []
    return [(f"{2**power // 2 + 1}–{2**power}", bins[power]) for power in range(min(bins), max(bins) + 1)]
