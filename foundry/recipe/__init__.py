"""Recipes: parents fused into one model that keeps what each of them could do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from foundry.config import Component
from foundry.hardware import Machine
from foundry.records import BaseModel, Checkpoint

__all__ = ["Checkpoint", "Prepared", "Recipe"]


@dataclass(frozen=True)
class Prepared:
    """A recipe whose parents were found and seen to fit; nothing is written yet.

    Attributes:
        base: The model that the parents have in common.
        parents: The parents by name, each with its lot.
        needs: Bytes of memory and of disk that the fusion takes, by what they are for.
        plan: What the recipe itself keeps from its checks.
    """

    base: BaseModel
    parents: Mapping[str, Checkpoint]
    needs: Mapping[str, int]
    plan: Sequence[Any] = field(default=())


class Recipe(Component, ABC):
    """How parents are fused.

    Attributes:
        seed: Decides what is dropped at random; the same recipe gives the same bytes on every run.
    """

    seed: int = Field(0, ge=0, lt=2**32)

    @abstractmethod
    def look(self) -> None:
        """See that the parents of this machine are there, before another job runs; those at a URI are not fetched.

        Raises:
            ConfigError: There is nothing at a path.
            DataError: There is no model, or one that cannot be used.
        """

    @abstractmethod
    def prepare(self, base: BaseModel, machine: Machine) -> Prepared:
        """Find the parents and see that they can be fused; nothing is written outside the cache.

        Raises:
            ConfigError: A setting does not suit the parents.
            DataError: A parent is missing, not safetensors, or of another base, vocabulary or shape.
            HardwareError: There is too little memory.
        """

    @abstractmethod
    def fuse(self, prepared: Prepared, machine: Machine, run_dir: Path) -> Checkpoint:
        """Fuse the parents and write `run_dir/model`, which appears whole or not at all.

        Raises:
            DataError: A parent changed since it was looked at.
        """
