"""Publishing: a passed checkpoint goes to where others take it from, whole or not at all."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from foundry.config import Component
from foundry.errors import PublishError
from foundry.records import Checkpoint, Release, Verdict

__all__ = ["Publisher", "Release", "refuse_unless_passed"]


class Publisher(Component, ABC):
    """Where releases go."""

    publishes: ClassVar[bool] = True

    @abstractmethod
    def check(self) -> None:
        """See, before hours of training, that what publishing needs is here: programs, keys, secrets.

        Raises:
            PublishError: Something is missing.
        """

    @abstractmethod
    def publish(self, run_dir: Path, checkpoint: Checkpoint, verdict: Verdict) -> Release:
        """Publish a run directory's model with its lot, manifest, verdict and report.

        Raises:
            PublishError: There is no passing verdict, the tag is taken by another lot, or the place
                cannot be written.
        """


def refuse_unless_passed(checkpoint: Checkpoint, verdict: Verdict) -> None:
    """Hold the one rule of publishing.

    Raises:
        PublishError: The verdict has not passed, or is about another lot.
    """
    if not (verdict.examined and verdict.passed):
        raise PublishError("the checkpoint has no passing verdict; nothing was published")
    if verdict.lot != checkpoint.lot:
        raise PublishError(
            f"the verdict is about lot {verdict.lot[:12]}, not {checkpoint.lot[:12]}; nothing was published"
        )
