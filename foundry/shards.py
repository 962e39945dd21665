"""Rows as Parquet shards of bounded size, as `foundry curate` writes them and `data=files` reads them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry.errors import DataError
from foundry.lot import canonical, digest_file
from foundry.records import Row
from foundry.rows import encode

if TYPE_CHECKING:
    import pyarrow as pa

TRAIN, HELD_OUT = "train", "eval"
"""The folders of the two splits."""

GROUP = 8192
"""Rows in a row group: what is held in memory as a table at a time."""

_CONVERSATIONS = ("prompt", "completion", "chosen", "rejected")
_JSON = ("tools", "schema", "task")
_FIELDS = (*_CONVERSATIONS, "text", *_JSON)
_PARTS = ("role", "content", "name", "tool_call_id", "tool_calls")
_PLACES = ", ".join((*_FIELDS, *_PARTS))


def write(folder: Path, split: str, rows: Sequence[Row], limit: int) -> dict[str, str]:
    """Write rows, in their order, as `<split>/00000.parquet` and so on, compressed with zstd.

    The columns are the fields of a row. Tools and calls of tools are JSON text: as columns, each would get the
    arguments of all others. The same rows give the same bytes, with one version of pyarrow.

    Args:
        folder: Where the split's folder is made.
        split: Its name.
        rows: Rows of one shape.
        limit: Bytes of canonical JSON that a shard holds at most, unless one row has more.

    Returns:
        SHA-256 of each shard by its path relative to `folder`; empty without rows.

    Raises:
        DataError: A row has fields that no source of foundry gives it.
    """
    if not rows:
        return {}
    from pyarrow.parquet import ParquetWriter

    (folder / split).mkdir()
    schema = _schema(rows)
    files = {}
    for number, shard in enumerate(_shards(rows, limit)):
        name = f"{split}/{number:05}.parquet"
        with ParquetWriter(folder / name, schema, compression="zstd") as writer:
            for group in _groups(shard):
                writer.write_table(_table(group, schema))
        files[name] = digest_file(folder / name)
    return files


def _shards(rows: Iterable[Row], limit: int) -> Iterator[Iterator[Row]]:
    """Parts of the rows, each to be gone through before the next is asked for."""
    source = iter(rows)
    pending = next(source, None)

    def shard() -> Iterator[Row]:
        nonlocal pending
        room = limit
        while pending is not None:
            size = len(encode(pending))
            if size > room and room < limit:
                return
            room -= size
            row, pending = pending, next(source, None)
            yield row

    while pending is not None:
        yield shard()


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while group := list(islice(rows, GROUP)):
        yield group


def _schema(rows: Sequence[Row]) -> "pa.Schema":
    """The columns that the rows need; messages get those for tools only where there are tools.

    Raises:
        DataError: A row has a field of another name.
    """
    import pyarrow as pa

    names: set[str] = set()
    parts = {"role", "content"}
    for row in rows:
        names |= row.keys()
        parts.update(*(message for name in _CONVERSATIONS for message in row.get(name, ())))
    if unknown := sorted(names - {*_FIELDS}) + sorted(parts - {*_PARTS}):
        raise DataError(f"rows have {', '.join(unknown)}, for which a curated set has no place (it has: {_PLACES})")
    message = pa.struct([(name, pa.string()) for name in _PARTS if name in parts])
    kinds = {name: pa.string() for name in ("text", *_JSON)}
    return pa.schema([(name, kinds.get(name, pa.list_(message))) for name in _FIELDS if name in names])


def _table(rows: Sequence[Row], schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist([_flat(row) for row in rows], schema=schema)


def _flat(row: Row) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if name in _JSON:
        return canonical(value).decode()
    if isinstance(value, list):
        return [_message(message) for message in value]
    return value


def _message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if "tool_calls" not in message:
        return message
    return {**message, "tool_calls": canonical(message["tool_calls"]).decode()}
