"""Models: a base model made ready on disk, whatever form it comes in."""

from foundry.records import BaseModel
from foundry.source import ModelSource

__all__ = ["BaseModel", "ModelSource"]
