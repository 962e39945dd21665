"""Answers that a program can read."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pydantic import Field

from foundry.errors import DataError
from foundry.examine import Score
from foundry.examine.answered import Answered, mean
from foundry.records import Row

_FENCE = "```"
_ANYTHING = {"type": "object"}


class ToolJson(Answered):
    """The share of answers that are JSON and fit the row's JSON schema.

    A row's `schema` says what its answer must be. A row with `tools` in its place asks for a call: an object with the
    `name` of one of them, and `arguments` that fit its `parameters`. Around the JSON only a code fence is allowed.
    """

    max_new_tokens: int = Field(128, ge=1)

    def check(self, rows: Sequence[Row], name: str) -> None:
        """Each row must have a sound schema.

        Raises:
            DataError: One has not.
        """
        super().check(rows, name)
        for number, row in enumerate(rows):
            place = f"examine.metrics.{name}: held-out row {number}"
            if not isinstance(row.get("schema"), Mapping) and not row.get("tools"):
                raise DataError(f"{place} has no schema (an object) and no tools")
            if why := _unsound(_schema(row)):
                raise DataError(f"{place}: not a sound JSON schema: {why}")

    def score(self, rows: Sequence[Row], evidence: Sequence[str]) -> Score:
        """Judge the answers; `details` tell those that parse from those that also fit."""
        read = [_read(answer) for answer in evidence]
        fit = [float(bool(found) and _fits(found[0], _schema(row))) for found, row in zip(read, rows, strict=True)]
        return Score(fit, details={"parsed": mean([bool(found) for found in read])})

    def expected(self, row: Row) -> str:
        """The schema, as JSON."""
        return json.dumps(_schema(row), ensure_ascii=False)


def _schema(row: Row) -> Mapping[str, Any]:
    """The schema of a row's answer; of one with tools, that of a call."""
    if isinstance(row.get("schema"), Mapping):
        return dict(row["schema"])
    tools = [tool.get("function", tool) for tool in row["tools"]]
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.get("name")},
                "arguments": tool.get("parameters", _ANYTHING),
            },
            "required": ["name", "arguments"],
        }
        for tool in tools
    ]
    return {"anyOf": calls}


def _read(answer: str) -> list[Any]:
    """The value in a list, which is empty if the answer is no JSON."""
    text = answer.strip()
    if text.startswith(_FENCE) and text.endswith(_FENCE) and "\n" in text:
        text = text.partition("\n")[2].removesuffix(_FENCE)
    try:
        return [json.loads(text, parse_constant=_refuse)]
    except (ValueError, RecursionError):
        return []


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _unsound(schema: Mapping[str, Any]) -> str | None:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        return " ".join(str(error).split())[:200]
    return None


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value fits; a reference to another document is followed nowhere, and so fits nothing."""
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    registry: Any = Registry()
    try:
        return bool(Draft202012Validator(schema, registry=registry).is_valid(value))
    except (Unresolvable, RecursionError):
        return False
