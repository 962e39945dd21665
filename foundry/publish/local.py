"""A folder registry: `<registry>/<name>/<tag>/`, which appears by one rename and never changes again."""

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from foundry.errors import DataError, PublishError
from foundry.lot import LOT, SHORT, digest, digest_folder
from foundry.publish import Publisher, refuse_unless_passed
from foundry.records import Checkpoint, Release, Verdict, plain
from foundry.run import clear_abandoned, sync, write_json

RELEASE = "release.json"
_FILES = (LOT, "manifest.yaml", "verdict.json", "report.html", "loss.csv")
_FOLDERS = ("model", "package")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class LocalRegistry(Publisher):
    """A registry in a folder, safe for several writers: of two that want one tag, one gets it.

    Attributes:
        registry: The folder.
        name: The release's name below it.
        tag: Its tag, None for `lot-<lot number>`.
        trigger_deployment: Written into release.json, for whoever deploys what appears in the registry.
    """

    registry: str = Field("outputs/registry", min_length=1)
    name: str = Field(pattern=_NAME)
    tag: str | None = Field(None, pattern=_NAME)
    trigger_deployment: bool = False

    @field_validator("registry")
    @classmethod
    def _a_folder(cls, registry: str) -> str:
        if "://" in registry:
            raise ValueError(f"found {registry!r}, expected a folder")
        return registry

    def publish(self, run_dir: Path, checkpoint: Checkpoint, verdict: Verdict) -> Release:
        """Copy into a scratch folder, read it back, and rename it to its tag.

        Raises:
            PublishError: There is no passing verdict, the tag is taken by another lot, or the folder
                cannot be written.
        """
        refuse_unless_passed(checkpoint, verdict)
        tag = self.tag or f"lot-{checkpoint.lot[:SHORT]}"
        shelf = Path(self.registry) / self.name
        scratch = shelf / f".incoming-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            shelf.mkdir(parents=True, exist_ok=True)
            clear_abandoned(shelf, "incoming")
            manifest = self._copy(run_dir, scratch, tag, checkpoint, verdict)
            fresh = self._show(scratch, shelf / tag, checkpoint.lot)
        except OSError as error:
            raise PublishError(
                f"publish.registry: {error.filename or shelf}: {error.strerror or error}; nothing was published"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        place = (shelf / tag).resolve()
        return Release(
            str(place), tag, checkpoint.lot, manifest["digest"], manifest["files"], verdict, checkpoint, fresh
        )

    def _copy(self, run_dir: Path, scratch: Path, tag: str, checkpoint: Checkpoint, verdict: Verdict) -> dict[str, Any]:
        scratch.mkdir()
        for folder in _FOLDERS:
            if (run_dir / folder).is_dir():
                shutil.copytree(run_dir / folder, scratch / folder)
        for file in _FILES:
            if (run_dir / file).is_file():
                shutil.copyfile(run_dir / file, scratch / file)
        files = digest_folder(scratch)
        expected = digest_folder(run_dir / "model")
        if any(files.get(f"model/{name}") != sha for name, sha in expected.items()):
            raise PublishError(f"{scratch}: the copy differs from {run_dir / 'model'}; nothing was published")
        manifest: dict[str, Any] = {
            "name": self.name,
            "tag": tag,
            "lot": checkpoint.lot,
            "trigger_deployment": self.trigger_deployment,
            "verdict": {m.name: plain(m) | {"samples": []} for m in verdict.measurements},
            "files": files,
        }
        manifest["digest"] = digest(manifest)
        write_json(scratch / RELEASE, manifest)
        sync(scratch)
        return manifest

    def _show(self, scratch: Path, place: Path, lot: str) -> bool:
        """Make the release visible; say whether it is new.

        A rename onto a folder that is not empty fails, which is what makes tags atomic.
        """
        try:
            scratch.rename(place)
        except OSError:
            if not place.is_dir():
                raise
            there = _lot_of(place)
            if there != lot:
                raise PublishError(
                    f"publish.tag={place.name}: {place} holds lot {there[:SHORT]}, this is {lot[:SHORT]}; "
                    "choose another tag"
                ) from None
            return False
        return True


def _lot_of(place: Path) -> str:
    try:
        return str(json.loads((place / RELEASE).read_text(encoding="utf-8"))["lot"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place / RELEASE}: cannot be read ({error}); expected a release") from error
