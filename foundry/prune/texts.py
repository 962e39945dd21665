"""What of a row is compared, and what must be the same before it is compared at all."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from foundry.lot import digest
from foundry.records import Row

Compared = Literal["prompt", "completion", "both"]

_PROMPT = ("text", "prompt")
_ANSWERS = ("completion", "chosen", "rejected")
_LABELS = ("tool_calls", "tool_call_id", "name")


def compared(rows: Iterable[Row], which: Compared) -> tuple[list[tuple[str, ...]], list[str]]:
    """For each row the texts that are compared, and what must be equal for two rows to be compared at all."""
    texts, apart = [], []
    for row in rows:
        texts.append(sides(row, which))
        apart.append(setting(row))
    return texts, apart


def sides(row: Row, which: Compared) -> tuple[str, ...]:
    """The texts of a row that are compared, one for each of its fields; two rows are near if all of them are.

    Args:
        row: Of any of the three shapes. `text` of a text row counts as its prompt.
        which: `prompt`, `completion` (of a preference row the chosen and the rejected one), or `both`.

    Returns:
        One to three texts, as many for every row of the same shape; system messages are left out.
    """
    wanted = {"prompt": _PROMPT, "completion": _ANSWERS, "both": (*_PROMPT, *_ANSWERS)}[which]
    found = tuple(_said(row[name]) for name in wanted if name in row)
    return found or tuple(_said(row[name]) for name in (*_PROMPT, *_ANSWERS) if name in row)


def setting(row: Row) -> str:
    """Digest of what makes two rows different however alike their words are: system messages, tools, labels."""
    words = {name: _frame(row[name]) for name in (*_PROMPT, *_ANSWERS) if name in row}
    return digest({**{name: value for name, value in row.items() if name not in words}, **words})


def _said(field: Any) -> str:
    if isinstance(field, str):
        return field
    return "\n".join(str(message.get("content") or "") for message in field if message["role"] != "system")


def _frame(field: str | Sequence[Mapping[str, Any]]) -> list[Any]:
    """The roles of a conversation in their order, whole system messages, and calls of tools."""
    if isinstance(field, str):
        return []
    return [
        dict(message)
        if message["role"] == "system"
        else {"role": message["role"], **{name: message[name] for name in _LABELS if message.get(name)}}
        for message in field
    ]
