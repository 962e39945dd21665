"""JSON Lines and JSON documents → records."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import orjson

from foundry.data.faults import BrokenError, Entry, RecordError
from foundry.data.lines import MARK, lines

_SEPARATOR = re.compile(r"[\s,]*")
_WRAPPERS = ("data", "rows", "examples")
_decode = json.JSONDecoder().raw_decode


def json_lines(blocks: Iterable[bytes]) -> Iterator[Entry]:
    """Read one value a line; blank lines are nothing."""
    for number, line in lines(blocks):
        if isinstance(line, RecordError):
            yield number, line
        elif line and not line.isspace():
            yield number, _loaded(line)


def json_values(blocks: Iterable[bytes]) -> Iterator[Entry]:
    """Read what may be one document or JSON Lines: an object that fills the first of several lines tells the latter.

    Raises:
        BrokenError: It is a document with a fault in it, which hides where the next value begins.
    """
    blocks, parts = iter(blocks), []
    for block in blocks:
        parts.append(block)
        if b"\n" in block.lstrip():
            break
    first, _, after = b"".join(parts).removeprefix(MARK).lstrip().partition(b"\n")
    if after.strip() and isinstance(_loaded(first), dict):
        return json_lines(chain(parts, blocks))
    document = b"".join(chain(parts, blocks)).decode("utf-8-sig", errors="surrogateescape")
    return _document(document) if _whole(document) else json_lines([document.encode("utf-8", "surrogateescape")])


def _whole(document: str) -> bool:
    """Whether it is an array, or begins with a value that is whole."""
    begin = _after(document, 0)
    try:
        return document.startswith("[", begin) or bool(_decode(document, begin))
    except (ValueError, RecursionError):
        return False


def _loaded(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return RecordError(_why(line, error))


def _why(line: bytes, error: orjson.JSONDecodeError) -> str:
    if "depth" in error.msg or "ecursion" in error.msg:
        return "nested too deep"
    if "surrogate" in error.msg and "UTF-8" not in error.msg:
        return f"has a lone surrogate (character {error.colno})"
    try:
        line.decode()
    except UnicodeDecodeError as wrong:
        marked = line.startswith((b"\xff\xfe", b"\xfe\xff"))
        return "not UTF-8 but UTF-16; convert the file" if marked else f"not UTF-8 (byte {wrong.start + 1})"
    return f"not JSON: {error.msg} (character {error.colno})"


def _document(document: str) -> Iterator[Entry]:
    """The objects of a JSON array, of the array under `data` in an object, or written one after the other."""
    place, counted, line = _after(document, 0), 0, 1
    array = document.startswith("[", place)
    place += array
    while (place := _after(document, place)) < len(document) and not document.startswith("]", place):
        line, counted = line + document.count("\n", counted, place), place
        try:
            value, place = _decode(document, place)
        except (ValueError, RecursionError) as error:
            why = "nested too deep" if isinstance(error, RecursionError) else f"not JSON: {error}"
            raise BrokenError(f"{why}; what follows cannot be read") from None
        yield from ((line, row) for row in ([value] if array else _listed(value)))
    if array and place >= len(document):
        raise BrokenError("the array is not closed: the file breaks off")


def _after(document: str, place: int) -> int:
    found = _SEPARATOR.match(document, place)
    return found.end() if found else place


def _listed(value: Any) -> list[Any]:
    """The rows in `{"data": [{…}, …]}`; any other value is a row itself."""
    arrays = [value[key] for key in _WRAPPERS if isinstance(value.get(key), list)] if isinstance(value, dict) else []
    return arrays[0] if len(arrays) == 1 else [value]
