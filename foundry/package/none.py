"""No extra deliverables."""

from foundry.deliverables import NOTHING
from foundry.package import Examined, Package, Packager


class NoPackage(Packager):
    """The checkpoint is all there is."""

    def package(self, examined: Examined) -> Package:  # noqa: ARG002
        """Make nothing."""
        return NOTHING
