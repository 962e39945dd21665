"""How surprised a model is by the right answers: the loss of each row's answer, given its prompt."""

from collections.abc import Sequence
from typing import Any

from foundry import console
from foundry.errors import DataError
from foundry.hardware import Machine
from foundry.loading import autocast
from foundry.records import Row

LOGITS = 2**30
"""Bytes that a batch's logits may take; a long row alone may take more."""


def losses(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    machine: Machine,
    *,
    max_length: int,
    batch_size: int,
    note: str,
) -> list[list[float]]:
    """The loss of each row's answer, or of a text as a whole, as training counts it.

    Rows are sorted by length and padded on the left, so that what is counted stands at the end of each and the
    head is only taken there. Of rows with much to count, fewer are taken at a time than `batch_size`: see `LOGITS`.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, with a chat template unless the rows are texts.
        rows: Conversations, preferences (the chosen side counts) or texts.
        machine: Its precision.
        max_length: Tokens to which a row is cut at the end.
        batch_size: Rows taken at a time, at most.
        note: What the progress bar says.

    Returns:
        For each row the sum over its tokens in nats, and how many there are.

    Raises:
        DataError: A row has nothing to count.
    """
    import torch

    cut = [_cut(row, tokenizer, max_length, index) for index, row in enumerate(rows)]
    batches = _batches(cut, batch_size, LOGITS // (4 * model.config.get_text_config().vocab_size))
    found: list[list[float]] = [[] for _ in rows]
    model.eval()
    with torch.inference_mode(), autocast(machine):
        for batch in console.track(batches, "examine", note):
            sums = _summed(model, tokenizer, [cut[i] for i in batch])
            for index, total in zip(batch, sums, strict=True):
                found[index] = [total, float(_counted(cut[index]))]
    return found


def _batches(cut: list[tuple[list[int], int]], batch_size: int, places: int) -> list[list[int]]:
    """Rows by length, so many at a time at most that the head is taken at no more than so many places."""
    batches: list[list[int]] = []
    keep = 0
    for index in sorted(range(len(cut)), key=lambda i: len(cut[i][0])):
        own = _counted(cut[index]) + 1
        keep = max(keep, own)
        if not batches or len(batches[-1]) == batch_size or (len(batches[-1]) + 1) * keep > places:
            batches.append([])
            keep = own
        batches[-1].append(index)
    return batches


def _summed(model: Any, tokenizer: Any, made: list[tuple[list[int], int]]) -> list[float]:
    import torch

    ids = [tokens for tokens, _ in made]
    padded = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(model.device)
    counted = [_counted(row) for row in made]
    positions = (padded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    logits = model(**padded, position_ids=positions, use_cache=False, logits_to_keep=max(counted) + 1).logits
    sums = []
    for row, wanted, count in zip(logits, padded["input_ids"], counted, strict=True):
        each = torch.nn.functional.cross_entropy(row[-count - 1 : -1].float(), wanted[-count:], reduction="none")
        sums.append(float(each.double().sum()))
    return sums


def _counted(row: tuple[list[int], int]) -> int:
    """The tokens of a row that count."""
    ids, start = row
    return len(ids) - start


def _cut(row: Row, tokenizer: Any, max_length: int, index: int) -> tuple[list[int], int]:
    """A row's tokens, and where those begin that count."""
    if "text" in row:
        ids, start = list(tokenizer(row["text"])["input_ids"]), 1
        ids = ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]
    else:
        answer = next(key for key in ("completion", "chosen") if key in row)
        options = {"tools": row.get("tools") or None, "return_dict": False}
        prompt = tokenizer.apply_chat_template(list(row["prompt"]), add_generation_prompt=True, **options)
        ids, start = list(tokenizer.apply_chat_template([*row["prompt"], *row[answer]], **options)), len(prompt)
        if ids[:start] != prompt:
            raise DataError(f"held-out row {index}: the chat template writes the prompt otherwise before an answer")
    ids = ids[:max_length]
    if len(ids) <= start:
        raise DataError(f"held-out row {index}: its answer is empty, or its prompt has {start} tokens or more")
    return ids, start
