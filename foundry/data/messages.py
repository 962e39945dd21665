"""Conversations in the spellings that people have → lists of `{role, content}`, tool calls and results included."""

import json
import re
from collections.abc import Mapping
from typing import Any

from foundry.data.faults import RecordError

Message = dict[str, Any]
Record = Mapping[str, Any]
"""What a file holds: fields by name."""

_ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt", "chatgpt", "model", "bing", "bard", "function_call"),
    "tool": ("tool", "function", "observation", "function_response"),
}
_ROLE = {spelling: role for role, spellings in _ROLES.items() for spelling in spellings}
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def conversation(value: Any, key: str, speaker: str | None = None) -> list[Message]:
    """Read a list of messages, or the text of one.

    Args:
        value: Messages as `role` and `content` or `from` and `value`, or their JSON.
        key: What it is called, for reasons.
        speaker: Whose message a plain text is; None where a text is the JSON of a list.

    Raises:
        RecordError: It is something else, or one of its messages is.
    """
    if isinstance(value, str):
        if speaker:
            return [{"role": speaker, "content": text(value, key)}]
        value = parsed(value, key)
    if not isinstance(value, list) or not value:
        raise RecordError(f"{key}: expected a list of messages, found {kind(value)}")
    return [_message(item, f"{key}[{i}]") for i, item in enumerate(value)]


def answered(value: Any, key: str) -> list[Message]:
    """Read a conversation that ends with the assistant's turn."""
    messages = conversation(value, key)
    if not any(message["role"] == "assistant" for message in messages):
        raise RecordError(f"{key}: has no assistant turn")
    if messages[-1]["role"] != "assistant":
        raise RecordError(f"{key}: ends with the {messages[-1]['role']}'s turn, expected the assistant's")
    return messages


def dialogue(value: str) -> list[Message] | None:
    r"""Read the text `\n\nHuman: … \n\nAssistant: …` as messages; None if it is no such text."""
    before, *turns = _TURN.split(value)
    if before.strip() or "Human" not in turns[::2]:
        return None
    pairs = zip(turns[::2], turns[1::2], strict=True)
    return [{"role": _SPEAKERS[name], "content": text(said.strip(), name)} for name, said in pairs]


def text(value: Any, key: str) -> str:
    """Read a text that says something."""
    if not isinstance(value, str):
        raise RecordError(f"{key}: expected text, found {kind(value)}")
    if not value or value.isspace():
        raise RecordError(f"{key}: is empty")
    return value


def parsed(value: str, key: str) -> Any:
    """Read JSON inside a field, as CSV and Parquet files carry it."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise RecordError(f"{key}: expected a list, found a text that is not JSON") from None


def tools(value: Any) -> list[Any]:
    """Read the descriptions of tools: a list of objects, or its JSON."""
    found = parsed(value, "tools") if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise RecordError("tools: expected a list of objects")
    return found


def introduced(row: Record, prompt: list[Message]) -> list[Message]:
    """Put the record's own system text in front of a prompt, if it has one and the prompt none."""
    if not row.get("system") or prompt[0]["role"] == "system":
        return prompt
    return [{"role": "system", "content": text(row["system"], "system")}, *prompt]


def kind(value: Any) -> str:
    """What a value is, in a word that JSON knows."""
    if isinstance(value, list) and not value:
        return "an empty list"
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _message(item: Any, key: str) -> Message:
    if not isinstance(item, Mapping):
        raise RecordError(f"{key}: expected role and content, found {kind(item)}")
    said = item.get("role") or item.get("from")
    role = _ROLE.get(said) if isinstance(said, str) else None
    if role is None:
        found = f"{said!r:.40}" if isinstance(said, str) else kind(said)
        raise RecordError(f"{key}: the role is {found}, expected one of {', '.join(sorted(_ROLE))}")
    content = item.get("content") if "content" in item else item.get("value")
    if role == "user" or (role == "assistant" and said != "function_call" and not item.get("tool_calls")):
        return {"role": role, "content": text(_joined(content, key), key)}
    return _with_tools(item, said, role, content, key)


def _with_tools(item: Mapping[str, Any], said: Any, role: str, content: Any, key: str) -> Message:
    """A system's or tool's message, or an assistant's that calls tools: these may say nothing."""
    message: Message = {"role": role, "content": ""}
    if said == "function_call":
        message["tool_calls"] = [_call(content, key)]
    else:
        message["content"] = "" if content is None else _joined(content, key)
    if role == "assistant" and item.get("tool_calls"):
        message["tool_calls"] = _calls(item["tool_calls"], f"{key}.tool_calls")
    for name in ("name", "tool_call_id"):
        if isinstance(item.get(name), str):
            message[name] = item[name]
    return message


def _joined(content: Any, key: str) -> str:
    """A text, or the texts of OpenAI's content parts one after the other."""
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise RecordError(f"{key}: expected parts of type text, found {kind(part)} of another type")
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise RecordError(f"{key}: expected text, found {kind(content)}")
    return content


def _calls(value: Any, key: str) -> list[Message]:
    calls = parsed(value, key) if isinstance(value, str) else value
    if not isinstance(calls, list):
        raise RecordError(f"{key}: expected a list of calls, found {kind(calls)}")
    return [_call(call, key) for call in calls]


def _call(value: Any, key: str) -> Message:
    """A call in OpenAI's form, its arguments an object, as chat templates expect them."""
    call = parsed(value, key) if isinstance(value, str) else value
    inner = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise RecordError(f"{key}: expected a call with the function's name and arguments")
    arguments = inner.get("arguments")
    arguments = parsed(arguments, f"{key}.arguments") if isinstance(arguments, str) else arguments
    if not isinstance(arguments, Mapping):
        raise RecordError(f"{key}.arguments: expected an object, found {kind(arguments)}")
    made: Message = {"type": "function", "function": {"name": inner["name"], "arguments": dict(arguments)}}
    return made | ({"id": call["id"]} if isinstance(call.get("id"), str) else {})
