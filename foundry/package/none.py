"""No extra deliverables."""

from collections.abc import Sequence
from pathlib import Path

from foundry.hardware import Machine
from foundry.package import Packager
from foundry.records import Checkpoint, Judge, Package, Row, Verdict


class NoPackage(Packager):
    """The checkpoint is all there is."""

    def package(
        self,
        checkpoint: Checkpoint,  # noqa: ARG002
        run_dir: Path,  # noqa: ARG002
        learnt: Sequence[Row],  # noqa: ARG002
        held_out: Sequence[Row],  # noqa: ARG002
        verdict: Verdict,  # noqa: ARG002
        machine: Machine,  # noqa: ARG002
        judge: Judge,  # noqa: ARG002
    ) -> Package:
        """Make nothing."""
        return Package(None)
