"""Tokenised rows, made once and kept in the cache: the next job with the same rows, template and length starts at once.

They are read through memory-mapped files, so that they take no memory of the process.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry.cache import made_once
from foundry.lot import digest, digest_file, is_intact, libraries, mark_intact
from foundry.method.tokens import MASKED, Tokens, tokenise
from foundry.records import Row
from foundry.rows import Rows

if TYPE_CHECKING:
    from datasets import Dataset

_TOKENS = "tokens.arrow"
_CHUNK = 1000
"""Rows that are tokenised between two writes."""


def tokenised(rows: Sequence[Row], tokenizer: Any, limit: int, *, pairs: bool) -> "Dataset":
    """Tokenise rows as `tokens.tokenise` does, or take what an earlier job made of them.

    Args:
        rows: Conversations, preferences or texts.
        tokenizer: A fast one.
        limit: Tokens to which a side is cut.
        pairs: Whether both sides of a preference are wanted.

    Returns:
        One row of tokens for each row, in their order.

    Raises:
        DataError: A row cannot be learnt from.
        HardwareError: The cache cannot be written.
    """
    from datasets import Dataset

    def make(folder: Path) -> None:
        _write(folder, tokenise(rows, tokenizer, limit, pairs=pairs))

    folder = made_once("tokens", _key(rows, tokenizer, limit, pairs=pairs), make, is_intact)
    return Dataset.from_file(str(folder / _TOKENS))


def _key(rows: Sequence[Row], tokenizer: Any, limit: int, *, pairs: bool) -> str:
    """A digest of all that tokens depend on: rows in their order, tokenizer with its template, settings, code."""
    return digest(
        {
            "rows": hashlib.sha256(Rows.of(rows).digests().tobytes()).hexdigest(),
            "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
            "template": tokenizer.chat_template,
            "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
            "settings": [limit, pairs],
            "libraries": libraries(),
            "code": [digest_file(Path(__file__)), digest_file(Path(__file__).with_name("tokens.py"))],
        }
    )


def _write(folder: Path, tokens: Iterator[Tokens]) -> None:
    import pyarrow as pa

    first = list(islice(tokens, _CHUNK))
    ids = pa.list_(pa.int32())
    schema = pa.schema([(name, pa.int64() if name == "row" else ids) for name in first[0]])
    with pa.OSFile(str(folder / _TOKENS), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for chunk in chain([first], iter(lambda: list(islice(tokens, _CHUNK)), [])):
            stream.write(pa.RecordBatch.from_pylist(chunk, schema))
    mark_intact(folder)


def totals(made: "Dataset") -> tuple[int, int]:
    """Count the tokens of tokenised rows, and those of them that are learnt from; of pairs, on both sides."""
    import pyarrow.compute as pc

    columns = {name: made.data.column(name) for name in made.column_names if name.endswith("labels")}
    values = [chunk.flatten() for column in columns.values() for chunk in column.chunks]
    return sum(map(len, values)), sum(pc.sum(pc.not_equal(part, MASKED)).as_py() or 0 for part in values)


def lengths(made: "Dataset") -> list[int]:
    """The tokens of each tokenised row, cut where training cuts it; of a pair, the longer side's."""
    import pyarrow.compute as pc

    columns = [made.data.column(name) for name in made.column_names if name.endswith("input_ids")]
    counted = [pc.list_value_length(column).to_pylist() for column in columns]
    return [max(sides) for sides in zip(*counted, strict=True)]
