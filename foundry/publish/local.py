"""A folder registry: `<registry>/<name>/<tag>/`, which appears by one rename and never changes again."""

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from foundry import release
from foundry.errors import PublishError
from foundry.lot import digest_folder
from foundry.publish.bundle import Bundle
from foundry.publish.registry import Registry
from foundry.release import RELEASE, SIGNATURE
from foundry.run import clear_abandoned, sync


class LocalRegistry(Registry):
    """A registry in a folder, safe for several writers: of two that want one tag, one gets it.

    Attributes:
        registry: The folder.
    """

    registry: str = Field("outputs/registry", min_length=1)

    @field_validator("registry")
    @classmethod
    def _a_folder(cls, registry: str) -> str:
        if "://" in registry:
            raise ValueError(f"found {registry!r}, expected a folder")
        return registry

    @property
    def _shelf(self) -> Path:
        return Path(self.registry) / self.name

    def ready(self) -> None:
        """Nothing is needed but the disk."""

    def place(self, tag: str) -> str:
        """The release's folder."""
        return str((self._shelf / tag).resolve())

    def released(self, tag: str) -> Mapping[str, Any] | None:
        """The `release.json` of the tag's folder."""
        place = self._shelf / tag
        return release.read(place) if place.is_dir() and any(place.iterdir()) else None

    def deliver(self, bundle: Bundle) -> bool:
        """Copy into a scratch folder, compare, and rename it to its tag.

        A rename onto a folder that is not empty fails, which is what makes tags atomic.
        """
        scratch = self._shelf / f".incoming-{os.getpid()}-{secrets.token_hex(4)}"
        self._shelf.mkdir(parents=True, exist_ok=True)
        clear_abandoned(self._shelf, "incoming")
        try:
            shutil.copytree(bundle.folder, scratch, copy_function=shutil.copyfile)
            if digest_folder(scratch, leave_out=(RELEASE, SIGNATURE)) != bundle.manifest["files"]:
                raise PublishError(f"{scratch}: the copy differs from {bundle.folder}; nothing was published")
            sync(scratch)
            scratch.rename(self._shelf / bundle.tag)
        except OSError:
            if not (self._shelf / bundle.tag).is_dir():
                raise
            return False
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return True

    def fetch(self, tag: str, folder: Path) -> Path:  # noqa: ARG002
        """The folder itself is what readers see."""
        return self._shelf / tag

    def conclude(self, tag: str) -> None:
        """A folder has no pointer to move."""
