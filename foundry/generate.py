"""Answers to many prompts, batched by length."""

from collections.abc import Sequence
from typing import Any

from foundry import console
from foundry.hardware import Machine
from foundry.loading import autocast
from foundry.records import Row


def answers(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    machine: Machine,
    *,
    max_new_tokens: int,
    batch_size: int,
    note: str,
    stage: str = "examine",
    seed: int | None = None,
) -> list[str]:
    """Answer each row's prompt: greedily, or with a `seed` by drawing each token as likely as the model has it.

    Prompts go through the chat template, are sorted by length so that little is padded, and are padded on
    the left so that every answer starts at the same column.

    Returns:
        One text for each row, in their order, special tokens left out.
    """
    import torch

    prompts = [
        tokenizer.apply_chat_template(list(row["prompt"]), add_generation_prompt=True, return_dict=False)
        for row in rows
    ]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    found = [""] * len(prompts)
    model.eval()
    with torch.inference_mode(), autocast(machine), torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        for batch in console.track(batches, stage, note):
            texts = _generate(model, tokenizer, [prompts[i] for i in batch], max_new_tokens, drawn=seed is not None)
            for index, text in zip(batch, texts, strict=True):
                found[index] = text
    return found


def _generate(model: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int, *, drawn: bool) -> list[str]:
    padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(model.device)
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if drawn else {"do_sample": False}
    written = model.generate(**padded, **how, max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id)
    new = written[:, padded["input_ids"].shape[1] :]
    return [str(text).strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
