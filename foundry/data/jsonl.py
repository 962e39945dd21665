"""Rows from a local JSONL file; a line that cannot be used is quarantined with its number and the reason."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from foundry.data import Source
from foundry.errors import DataError
from foundry.lot import canonical, digest_rows
from foundry.records import Dataset, Quarantined, Row, Shape

_ROLES = {"system", "user", "assistant", "tool"}


class Jsonl(Source):
    """One JSON object a line: `messages`, `prompt` and `completion`, or `text`.

    Attributes:
        path: The file.
        format: Which of these, or `auto` to recognise it row by row; all rows must come out in one shape.
        eval_fraction: Share of the rows held out (0 to 1); which ones depends on `seed` and the row alone.
        seed: Chooses the held-out rows.
        limit: Keep at most so many training rows.
        max_bad_fraction: Share of bad lines (0 to 1) above which the job stops.
    """

    path: str = Field(min_length=1)
    format: Literal["auto", "messages", "prompt_completion", "text"] = "auto"
    eval_fraction: float = Field(0.1, ge=0, lt=1)
    seed: int = Field(1, ge=0)
    limit: int | None = Field(None, ge=1)
    max_bad_fraction: float = Field(0.01, ge=0, le=1)

    def load(self) -> Dataset:
        """Read the file.

        Raises:
            DataError: It is missing, has no usable row, or more bad lines than allowed.
        """
        rows, bad, shapes = self._read()
        total = len(rows) + len(bad)
        first = f"{bad[0].source}:{bad[0].line}: {bad[0].reason}" if bad else ""
        if not rows:
            raise DataError(f"data.path: {self.path}: no usable row among {total} lines{'; ' + first if first else ''}")
        if len(bad) > self.max_bad_fraction * total:
            raise DataError(
                f"data.path: {len(bad)} of {total} lines are bad, more than data.max_bad_fraction="
                f"{self.max_bad_fraction} allows; the first: {first}"
            )
        held = [self._held_out(row) for row in rows]
        train = [row for row, out in zip(rows, held, strict=True) if not out][: self.limit]
        evaluation = [row for row, out in zip(rows, held, strict=True) if out]
        if not train:
            raise DataError(
                f"data.path: {self.path}: every row is held out; lower data.eval_fraction={self.eval_fraction}"
            )
        return Dataset(
            name=Path(self.path).stem,
            shape=shapes,
            train=train,
            eval=evaluation,
            sha256=digest_rows(train),
            eval_sha256=digest_rows(evaluation),
            quarantined=bad,
        )

    def _read(self) -> tuple[list[Row], list[Quarantined], Shape]:
        rows: list[Row] = []
        bad: list[Quarantined] = []
        shape: Shape | None = None
        for number, line in self._lines():
            try:
                row_shape, row = _convert(_parse(line), self.format)
                shape = shape or row_shape
                if row_shape != shape:
                    raise ValueError(f"a {row_shape} row among {shape} rows")
                rows.append(row)
            except ValueError as error:
                bad.append(Quarantined(self.path, number, str(error)))
        return rows, bad, shape or "text"

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            with Path(self.path).open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, line
        except OSError as error:
            raise DataError(f"data.path: {self.path}: {error.strerror}; expected a JSONL file") from None

    def _held_out(self, row: Row) -> bool:
        drawn = hashlib.sha256(str(self.seed).encode() + canonical(row)).digest()
        return int.from_bytes(drawn[:8], "big") < self.eval_fraction * 2**64


def _parse(line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, found {type(row).__name__}")  # noqa: TRY004
    return row


def _convert(row: Mapping[str, Any], form: str) -> tuple[Shape, Row]:
    if "messages" in row and form in {"auto", "messages"}:
        messages = _messages(row["messages"], "messages")
        if messages[-1]["role"] != "assistant" or len(messages) < 2:
            raise ValueError("messages: expected a conversation that ends with the assistant's turn")
        return "instruction", {"prompt": messages[:-1], "completion": messages[-1:]}
    if {"prompt", "completion"} <= row.keys() and form in {"auto", "prompt_completion"}:
        prompt = _messages(row["prompt"], "prompt", "user")
        return "instruction", {"prompt": prompt, "completion": _messages(row["completion"], "completion", "assistant")}
    if "text" in row and form in {"auto", "text"}:
        return "text", {"text": _text(row["text"], "text")}
    wanted = "messages, prompt and completion, or text" if form == "auto" else form
    raise ValueError(f"expected {wanted}, found the keys {', '.join(sorted(row)) or 'none'}")


def _messages(value: Any, key: str, role: str | None = None) -> list[dict[str, str]]:
    if isinstance(value, str) and role:
        return [{"role": role, "content": _text(value, key)}]
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key}: expected a list of messages, found {type(value).__name__}")
    return [_message(item, f"{key}[{i}]") for i, item in enumerate(value)]


def _message(item: Any, key: str) -> dict[str, str]:
    if not isinstance(item, dict) or not {"role", "content"} <= item.keys():
        raise ValueError(f"{key}: expected role and content")
    if item["role"] not in _ROLES:
        raise ValueError(f"{key}.role: found {item['role']!r}, expected one of {', '.join(sorted(_ROLES))}")
    content = item["content"]
    return {
        "role": item["role"],
        "content": content if content == "" and item["role"] == "system" else _text(content, key),
    }


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key}: expected text, found {type(value).__name__}")  # noqa: TRY004
    if not value.strip():
        raise ValueError(f"{key}: is empty")
    if "\0" in value:
        raise ValueError(f"{key}: has a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{key}: has a lone surrogate") from None
    return value
