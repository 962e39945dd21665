"""How surprised a model is by the right answers: the loss of each row's answer, given its prompt."""

from collections.abc import Sequence
from typing import Any

from foundry import console
from foundry.errors import DataError
from foundry.hardware import Machine
from foundry.loading import autocast
from foundry.records import Row


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
    head is only taken there.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, with a chat template unless the rows are texts.
        rows: Conversations, preferences (the chosen side counts) or texts.
        machine: Its precision.
        max_length: Tokens to which a row is cut at the end.
        batch_size: Rows taken at a time.
        note: What the progress bar says.

    Returns:
        For each row the sum over its tokens in nats, and how many there are.

    Raises:
        DataError: A row has nothing to count.
    """
    import torch

    cut = [_cut(row, tokenizer, max_length, index) for index, row in enumerate(rows)]
    order = sorted(range(len(cut)), key=lambda i: len(cut[i][0]))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    found: list[list[float]] = [[] for _ in rows]
    model.eval()
    with torch.inference_mode(), autocast(machine):
        for batch in console.track(batches, "examine", note):
            sums = _summed(model, tokenizer, [cut[i] for i in batch])
            for index, total in zip(batch, sums, strict=True):
                found[index] = [total, float(len(cut[index][0]) - cut[index][1])]
    return found


def _summed(model: Any, tokenizer: Any, made: list[tuple[list[int], int]]) -> list[float]:
    import torch

    ids = [tokens for tokens, _ in made]
    padded = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(model.device)
    counted = [len(tokens) - start for tokens, start in made]
    keep = max(counted)
    positions = (padded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    logits = model(**padded, position_ids=positions, use_cache=False, logits_to_keep=keep + 1).logits
    wanted = padded["input_ids"][:, -keep:]
    each = torch.nn.functional.cross_entropy(
        logits[:, -keep - 1 : -1].float().transpose(1, 2), wanted, reduction="none"
    )
    return [float(row[keep - count :].double().sum()) for row, count in zip(each, counted, strict=True)]


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
