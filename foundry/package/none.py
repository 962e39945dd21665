"""No extra deliverables."""

from pathlib import Path

from foundry.package import Packager
from foundry.records import Checkpoint, Package


class NoPackage(Packager):
    """The checkpoint is all there is."""

    def package(self, checkpoint: Checkpoint, run_dir: Path) -> Package:  # noqa: ARG002
        """Make nothing."""
        return Package(None)
