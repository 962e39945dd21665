"""The formats that people have, how each is recognised, and what it becomes; docs/data.md shows them side by side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from foundry.data.faults import RecordError, SetAsideError
from foundry.data.messages import Message, Record, answered, conversation, introduced, kind, parsed, text, tools
from foundry.data.pairs import preference
from foundry.records import Row, Shape

Format = Literal[
    "auto", "preference", "kto", "messages", "sharegpt", "prompt_completion", "alpaca", "question_answer", "text"
]


EXAMINED = ("schema", "task")
"""Objects that say how an answer is judged: kept for examinations, never learnt."""

_LABELS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Form:
    """One format: the fields that tell it, the shape it becomes, and how."""

    name: str
    needs: frozenset[str]
    shape: Shape
    convert: Callable[[Record], Row]


def _instruction(row: Record, prompt: list[Message], completion: list[Message]) -> Row:
    if not prompt:
        raise RecordError("nothing comes before the answer; expected a question")
    made = {"prompt": introduced(row, prompt), "completion": completion}
    carried = {name: found for name in EXAMINED if (found := _object(row.get(name))) is not None}
    return made | ({"tools": tools(row["tools"])} if row.get("tools") else {}) | carried


def _object(value: Any) -> dict[str, Any] | None:
    """An object, or its JSON; None for anything else, such as an SQL schema."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = parsed(value, "")
        except RecordError:
            return None
    return value if isinstance(value, dict) else None


def _messages(row: Record, key: str = "messages") -> Row:
    messages = answered(row[key], key)
    return _instruction(row, messages[:-1], messages[-1:])


def _sharegpt(row: Record) -> Row:
    return _messages(row, "conversations")


def _prompt_completion(row: Record) -> Row:
    return _instruction(row, conversation(row["prompt"], "prompt", "user"), _reply(row["completion"], "completion"))


def _reply(value: Any, key: str) -> list[Message]:
    return conversation(value, key, "assistant") if isinstance(value, str) else answered(value, key)


def _kto(row: Record) -> Row:
    label = row["label"]
    spoken = _LABELS.get(str(label).lower()) if isinstance(label, (str, bool, int)) else None
    if spoken is None:
        raise RecordError(f"label: expected true or false, found {kind(label)}")
    if not spoken:
        raise SetAsideError("the label is false; only wanted answers are learnt from")
    return _prompt_completion(row)


def _alpaca(row: Record) -> Row:
    asked, given = text(row["instruction"], "instruction"), row.get("input", "")
    if not isinstance(given, str):
        raise RecordError(f"input: expected text, found {kind(given)}")
    return _flat(row, f"{asked}\n\n{given}" if given.strip() else asked, row["output"], "output")


def _question_answer(row: Record) -> Row:
    return _flat(row, text(row["question"], "question"), row["answer"], "answer")


def _flat(row: Record, asked: str, answer: Any, key: str) -> Row:
    completion = [{"role": "assistant", "content": text(answer, key)}]
    return _instruction(row, [{"role": "user", "content": asked}], completion)


def _text(row: Record) -> Row:
    return {"text": text(row["text"], "text")}


_FORMS = (
    Form("preference", frozenset({"chosen", "rejected"}), "preference", preference),
    Form("kto", frozenset({"prompt", "completion", "label"}), "instruction", _kto),
    Form("messages", frozenset({"messages"}), "instruction", _messages),
    Form("sharegpt", frozenset({"conversations"}), "instruction", _sharegpt),
    Form("prompt_completion", frozenset({"prompt", "completion"}), "instruction", _prompt_completion),
    Form("alpaca", frozenset({"instruction", "output"}), "instruction", _alpaca),
    Form("question_answer", frozenset({"question", "answer"}), "instruction", _question_answer),
    Form("text", frozenset({"text"}), "text", _text),
)
"""In the order in which they are tried: the more telling fields first."""

NAMED = {form.name: form for form in _FORMS}
FIELDS = frozenset({"input", "system", "tools"}).union(*(form.needs for form in _FORMS))
"""Every field that some format reads."""


class Converter:
    """Turns records into rows.

    Args:
        form: The format that every record has, `auto` to recognise each by its fields.
        columns: What fields are called in the records → what they are called here.
        longest: Characters that a field may have.
    """

    def __init__(self, form: Format, columns: Mapping[str, str], longest: int) -> None:
        self._forms = _FORMS if form == "auto" else (NAMED[form],)
        self._wanted = f"the fields of {' or '.join(form.name for form in self._forms)}"
        self._columns, self._longest = columns, longest
        self._known: dict[tuple[str, ...], Form] = {}

    def __call__(self, record: Any) -> tuple[Form, Row]:
        """Recognise a record and convert it.

        Raises:
            SetAsideError: There is nothing to learn from it.
            RecordError: It is not in the format, or in none that is known.
        """
        if not isinstance(record, dict):
            raise RecordError(f"expected an object, found {kind(record)}")
        if self._columns:
            record = self._renamed(record)
        if None in record.values():
            record = {name: value for name, value in record.items() if value is not None}
        names = tuple(record)
        form = self._known.get(names) or self._recognise(names)
        return form, form.convert(record)

    def _renamed(self, record: Record) -> dict[str, Any]:
        taken = {target for name, target in self._columns.items() if name in record}
        own = {name: value for name, value in record.items() if name not in taken and name not in self._columns}
        return own | {target: record[name] for name, target in self._columns.items() if name in record}

    def _recognise(self, names: tuple[str, ...]) -> Form:
        for form in self._forms:
            if form.needs <= set(names):
                if len(self._known) < 1000:
                    self._known[names] = form
                return form
        found = ", ".join(sorted(names)[:12]) or "none"
        raise RecordError(f"expected {self._wanted}, found the fields {found:.200}")

    def check(self, row: Any, text: bytes) -> None:
        r"""Refuse a converted row that has a NUL character or a field with too many characters.

        Args:
            row: The row.
            text: Its canonical JSON, in which neither can be unless it is long or has `\u0000`.

        Raises:
            RecordError: It has one.
        """
        if len(text) > self._longest or b"\\u0000" in text:
            self._walk(row)

    def _walk(self, value: Any) -> None:
        if isinstance(value, str):
            if "\0" in value:
                raise RecordError("has a NUL character")
            if len(value) > self._longest:
                raise RecordError(
                    f"a field has {len(value):,} characters; data.max_field_chars={self._longest} allows no more"
                )
        elif isinstance(value, Mapping):
            for name, item in value.items():
                self._walk(name)
                self._walk(item)
        elif isinstance(value, list):
            for item in value:
                self._walk(item)


assert set(get_args(Format)) == {"auto", *NAMED}  # noqa: S101
