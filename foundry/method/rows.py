"""Rows seen as tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundry.loading import load_tokenizer, quiet
from foundry.records import Row

_SAMPLE = 64


def longest(rows: Sequence[Row], folder: Path, limit: int) -> int:
    """Tokens of the longest row, at most `limit`; among the rows with the most characters, so rarely too low.

    Args:
        rows: Conversations or texts.
        folder: Where the tokenizer is.
        limit: Tokens to which rows are cut.
    """
    quiet()
    tokenizer = load_tokenizer(folder)
    candidates = sorted(rows, key=_characters, reverse=True)[:_SAMPLE]
    return min(limit, max(_tokens(tokenizer, row) for row in candidates))


def _characters(row: Row) -> int:
    if "text" in row:
        return len(row["text"])
    return sum(len(message["content"]) for message in [*row["prompt"], *row["completion"]])


def _tokens(tokenizer: Any, row: Row) -> int:
    if "text" in row:
        return len(tokenizer(row["text"])["input_ids"]) + 1
    if not tokenizer.chat_template:
        return _characters(row)
    return len(tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=False))
