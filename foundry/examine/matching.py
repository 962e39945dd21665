"""How answers are compared with a reference: yes or no, exactly, as numbers, by a pattern, or by the task itself."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

from foundry.errors import ConfigError, DataError
from foundry.examine.answered import question, reference
from foundry.records import Row

Match = Literal["yes_no", "exact", "numeric", "regex", "task"]

_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+(?:[eE][-+]?\d+)?")
_CLOSE = 1e-6


def read_yes_no(text: str) -> str | None:
    """The first yes or no, None where there is neither."""
    found = _YES_NO.search(text)
    return found.group(1).lower() if found else None


def read_number(text: str) -> float | None:
    """The last number, as people write them, None where there is none."""
    found = _NUMBER.findall(text.replace("\N{MINUS SIGN}", "-"))
    try:
        return float(found[-1].replace(",", "")) if found else None
    except ValueError:
        return None


def normal(text: str) -> str:
    """A text without case, without outer punctuation, and with single spaces."""
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*()[]")


def reader(match: Match, pattern: str | None) -> Callable[[str], Any]:
    """What is read out of an answer, to be compared with what is read out of its reference."""
    if match == "yes_no":
        return read_yes_no
    if match == "numeric":
        return read_number
    if match == "exact" or pattern is None:
        return normal
    compiled = re.compile(pattern, re.IGNORECASE)

    def read(text: str) -> str | None:
        found = compiled.search(text)
        return normal(found.group(1) if compiled.groups else found.group()) if found else None

    return read


def same(first: Any, second: Any) -> bool:
    """Whether two things that were read are equal; numbers up to a relative 1e-6. Nothing equals nothing."""
    if first is None or second is None:
        return False
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) <= _CLOSE * max(1.0, abs(first), abs(second))
    return bool(first == second)


def task_scores(rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
    """What reasoning-gym's own `score_answer` gives each answer (0 to 1), on the item that it is an answer to.

    Raises:
        DataError: A row was drawn by another version of reasoning-gym.
    """
    scores = []
    for row, answer in zip(rows, answers, strict=True):
        task = row["task"]
        dataset = _drawn(task["name"], task["seed"], task["size"], _frozen(task["settings"]))
        entry = dataset[task["index"]]
        if entry["question"] != question(row):
            raise DataError(f"reasoning-gym draws {task['name']} otherwise than it did for these rows; load them again")
        scores.append(float(dataset.score_answer(answer, entry)))
    return scores


def _frozen(settings: Mapping[str, Any]) -> str:
    from foundry.lot import canonical

    return canonical(dict(settings)).decode()


@cache
def _drawn(name: str, seed: int, size: int, settings: str) -> Any:
    import json

    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError(f"match=task: reasoning-gym cannot be imported ({error})") from error
    return reasoning_gym.create_dataset(name, seed=seed, size=size, **json.loads(settings))


def unreadable(rows: Sequence[Row], match: Match, pattern: str | None) -> int | None:
    """The first row whose reference cannot be read, None if all can."""
    if match == "task":
        return next((i for i, row in enumerate(rows) if "task" not in row), None)
    read = reader(match, pattern)
    return next((i for i, row in enumerate(rows) if not reference(row) or read(reference(row)) in (None, "")), None)
