"""Rows → tokens, in one place for every objective: which tokens are read, and which are learnt from.

A tokenised row is `{"row", "input_ids", "labels"}`; of a pair it is `{"row", "chosen_input_ids", "chosen_labels",
"rejected_input_ids", "rejected_labels"}`. Labels are token ids, `MASKED` where nothing is learnt.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from foundry.errors import DataError
from foundry.records import Row

MASKED = -100
SAMPLE = 64

Tokens = dict[str, Any]


def tokenise(rows: Iterable[Row], tokenizer: Any, limit: int, *, pairs: bool) -> Iterator[Tokens]:
    """Write each row as the tokenizer's chat template does, cut at the end.

    Args:
        rows: Conversations, preferences or texts.
        tokenizer: With a chat template, unless the rows are texts.
        limit: Tokens to which a side is cut.
        pairs: Whether both sides of a preference are wanted; else the chosen one is the answer.

    Raises:
        DataError: A row has nothing to learn, or its prompt would be learnt.
    """
    for index, row in enumerate(rows):
        if not pairs:
            answer = next((key for key in ("completion", "chosen") if key in row), "text")
            yield {"row": index, **_side(row, answer, tokenizer, limit, index)}
            continue
        made: Tokens = {"row": index}
        for key in ("chosen", "rejected"):
            side = _side(row, key, tokenizer, limit, index)
            made |= {f"{key}_{name}": values for name, values in side.items()}
        yield made


def _side(row: Row, key: str, tokenizer: Any, limit: int, index: int) -> dict[str, list[int]]:
    ids, start = _text(row["text"], tokenizer) if key == "text" else _conversation(row, key, tokenizer, index)
    labels = [MASKED] * start + ids[start:]
    if all(label == MASKED for label in labels[:limit]):
        reason = f"its prompt alone has {start} tokens and method.max_length={limit}" if start else "it is empty"
        raise DataError(f"training row {index}: nothing to learn: {reason}; raise method.max_length or drop the row")
    return {"input_ids": ids[:limit], "labels": labels[:limit]}


def _text(text: str, tokenizer: Any) -> tuple[list[int], int]:
    """A text and the end-of-text token; the first token has nothing to be predicted from."""
    ids = list(tokenizer(text)["input_ids"])
    return (ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]), 1


def _conversation(row: Row, key: str, tokenizer: Any, index: int) -> tuple[list[int], int]:
    options = {"tools": row.get("tools") or None, "return_dict": False}
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, **options)
    ids = tokenizer.apply_chat_template([*row["prompt"], *row[key]], **options)
    if ids[: len(prompt)] != prompt:
        raise DataError(
            f"training row {index}: the chat template writes the prompt otherwise once an answer follows, so that "
            f"prompt tokens would be in the loss; expected a template whose generation prompt starts the answer"
        )
    return list(ids), len(prompt)


def need_template(rows: Sequence[Row], tokenizer: Any) -> None:
    """See that conversations can be written as tokens.

    Raises:
        DataError: The tokenizer has no chat template.
    """
    if "prompt" in rows[0] and not tokenizer.chat_template:
        raise DataError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template; expected one, the rows are conversations"
        )


def need_end_of_turn(made: Sequence[Tokens], tokenizer: Any) -> None:
    """See that the student learns to stop.

    Raises:
        DataError: No row trains the end-of-turn token.
    """
    key = "chosen_labels" if "chosen_labels" in made[0] else "labels"
    ends = tokenizer.eos_token_id
    if any(ends in row[key] for row in made):
        return
    raise DataError(
        f"the end-of-turn token {tokenizer.eos_token!r} is never trained, so the student would not learn to stop: "
        f"every row is cut before it (raise method.max_length), or the chat template does not close the answer with it"
    )


def longest_rows(rows: Sequence[Row]) -> list[Row]:
    """The `SAMPLE` rows with the most characters: the longest in tokens is rarely not among them."""
    return sorted(rows, key=_characters, reverse=True)[:SAMPLE]


def _characters(row: Row) -> int:
    if "text" in row:
        return len(row["text"])
    sides = [row[key] for key in ("completion", "chosen", "rejected") if key in row]
    return _spoken(row["prompt"]) + max(map(_spoken, sides))


def _spoken(messages: Sequence[Any]) -> int:
    return sum(len(message["content"]) for message in messages)


def sides(made: Tokens) -> list[tuple[str, list[int], list[int]]]:
    """Each sequence of a tokenised row: its name, ids and labels."""
    if "labels" in made:
        return [("row", made["input_ids"], made["labels"])]
    return [(key, made[f"{key}_input_ids"], made[f"{key}_labels"]) for key in ("chosen", "rejected")]
