"""No publishing."""

from pathlib import Path
from typing import ClassVar

from foundry.publish import Publisher
from foundry.records import Checkpoint, Release, Verdict


class Unpublished(Publisher):
    """The run directory is all there is."""

    publishes: ClassVar[bool] = False

    def check(self) -> None:
        """Nothing is needed."""

    def publish(self, run_dir: Path, checkpoint: Checkpoint, verdict: Verdict) -> Release:
        """Describe the run directory as a release that went nowhere."""
        return Release(str(run_dir), "", checkpoint.lot, "", {}, verdict, checkpoint, fresh=False)
