"""What can be wrong with a record or a file; all of it ends in the quarantine."""

from typing import Any


class RecordError(ValueError):
    """Why a record cannot be a row."""


class SetAsideError(RecordError):
    """A record that is in order but nothing to learn from; it does not count as bad."""


class BrokenError(Exception):
    """A file breaks off: what comes after the last record that was read is lost."""


Entry = tuple[int, Any]
"""The line or row number, from 1, and the record that begins there, or the `RecordError` of one that is none."""
