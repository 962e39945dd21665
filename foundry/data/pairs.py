"""Preference records, flat or conversational, with a prompt of their own or one that both sides begin with."""

from collections.abc import Sequence
from typing import Any

from foundry.data.faults import RecordError
from foundry.data.messages import Message, Record, answered, conversation, dialogue, introduced, text, tools
from foundry.records import Row


def preference(row: Record) -> Row:
    """Convert a preference record.

    Raises:
        RecordError: A side is missing or of another kind, both are the same, or there is no prompt.
    """
    prompt = conversation(row["prompt"], "prompt", "user") if "prompt" in row else []
    chosen, rejected = _side(row["chosen"], "chosen", prompt), _side(row["rejected"], "rejected", prompt)
    if isinstance(chosen, str) and isinstance(rejected, str):
        prompt, chosen, rejected = _split_texts(chosen, rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise RecordError("chosen and rejected: expected both as text or both as messages")
    if chosen[0]["role"] in {"system", "user"}:
        prompt, chosen, rejected = _split(chosen, rejected)
    if not prompt:
        raise RecordError("there is no prompt; expected one, or whole conversations in chosen and rejected")
    if chosen == rejected:
        raise RecordError("chosen and rejected are the same")
    if chosen[0]["role"] != "assistant" or rejected[0]["role"] != "assistant":
        raise RecordError("chosen and rejected: expected the assistant's turn after the prompt")
    made = {"prompt": introduced(row, prompt), "chosen": chosen, "rejected": rejected}
    return made | ({"tools": tools(row["tools"])} if row.get("tools") else {})


def _side(value: Any, key: str, prompt: Sequence[Message]) -> list[Message] | str:
    """One side of a pair: messages, or a text that still has its prompt in it."""
    if not isinstance(value, str):
        return answered(value, key)
    if prompt:
        return [{"role": "assistant", "content": text(value, key)}]
    turns = dialogue(text(value, key))
    return answered(turns, key) if turns else value


def _split(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
    """Two whole conversations: what they begin with alike is the prompt."""
    shared = _alike(chosen[:-1], rejected[:-1])
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _split_texts(chosen: str, rejected: str) -> tuple[list[Message], list[Message], list[Message]]:
    """Two whole texts: the words that they begin with alike are the prompt."""
    shared = _alike(chosen, rejected)
    while shared and not chosen[shared - 1].isspace():
        shared -= 1
    if not chosen[:shared].strip():
        return [], [{"role": "assistant", "content": chosen}], [{"role": "assistant", "content": rejected}]
    sides = ({"role": "assistant", "content": text(side[shared:], "an answer")} for side in (chosen, rejected))
    return [{"role": "user", "content": chosen[:shared].rstrip()}], [next(sides)], [next(sides)]


def _alike(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many items two sequences begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
