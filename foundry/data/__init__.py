"""Data: rows that people have, turned into one of the three shapes that methods learn from."""

from foundry.records import Dataset
from foundry.source import Source

__all__ = ["Dataset", "Source"]
