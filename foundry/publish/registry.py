"""What every registry does the same way, whatever it is kept in.

A release is put together, its files are brought to the registry, and its tag appears last, by one step that only one
of several writers can win. Then it is read back as any reader would, and only after that is anybody told of it or a
local file removed.
"""

import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from foundry import console, lot, release
from foundry.errors import ConfigError, DataError, PublishError
from foundry.publish import Publisher, refuse_unless_passed
from foundry.publish.bundle import Bundle, assembled
from foundry.publish.notice import announce, need_secret
from foundry.records import Checkpoint, Release, Verdict
from foundry.release import RELEASE, SIGNATURE
from foundry.signing import fingerprint

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
PAUSES = (0.5, 2.0, 8.0)
"""Seconds to wait before something is tried again that failed for a moment."""

_WEIGHTS = ("*.safetensors", "*.gguf")
T = TypeVar("T")


class TransientError(PublishError):
    """A failure that may pass: the network, a busy server, another writer."""


class Registry(Publisher, ABC):
    """A place with tags, each of which is one release for good.

    Attributes:
        name: The release's name.
        tag: Its tag, None for `lot-<lot number>`.
        trigger_deployment: Written into release.json and the notice, for whoever deploys what appears in the registry.
        notify: A URL that is told of each release.
        keep_local: Whether the run directory keeps its weights.
        sign: A private key on an elliptic curve, PEM, that the release is signed with.
    """

    name: str = Field(pattern=NAME)
    tag: str | None = Field(None, pattern=NAME)
    trigger_deployment: bool = False
    notify: str | None = Field(None, pattern=r"^https?://")
    keep_local: bool = True
    sign: str | None = Field(None, min_length=1)

    @abstractmethod
    def ready(self) -> None:
        """See that the programs and settings are here that this kind needs.

        Raises:
            FoundryError: Something is missing.
        """

    @abstractmethod
    def place(self, tag: str) -> str:
        """What `foundry verify` takes to find a tag's release."""

    @abstractmethod
    def released(self, tag: str) -> Mapping[str, Any] | None:
        """The `release.json` that a reader finds under a tag, None where the tag is free."""

    @abstractmethod
    def deliver(self, bundle: Bundle) -> bool:
        """Bring a release here, its tag last; say whether the tag became this one's by that.

        Raises:
            TransientError: It did not work now, and may be tried again.
        """

    @abstractmethod
    def fetch(self, tag: str, folder: Path) -> Path:
        """Read a tag's release as readers do, into an empty folder if need be, and say where its files are."""

    @abstractmethod
    def conclude(self, tag: str) -> None:
        """Do what comes after the read-back check, such as moving a pointer; it may have been done already."""

    def check(self) -> None:
        """See that programs, keys and secrets are here.

        Raises:
            PublishError: Something is missing.
        """
        try:
            if self.sign:
                fingerprint(Path(self.sign))
            need_secret(self.notify)
            self.ready()
        except (ConfigError, DataError) as error:
            raise PublishError(str(error)) from None

    def publish(self, run_dir: Path, checkpoint: Checkpoint, verdict: Verdict) -> Release:
        """Publish, read back, tell, and remove local weights if that is wanted.

        Raises:
            PublishError: There is no passing verdict, the tag is taken by another lot, or something does not work.
        """
        refuse_unless_passed(checkpoint, verdict)
        self.check()
        tag = self.tag or f"lot-{checkpoint.lot[: lot.SHORT]}"
        more = {"trigger_deployment": self.trigger_deployment}
        outcome = "nothing was published"
        try:
            with assembled(run_dir, checkpoint, verdict, self.name, tag, self.sign, **more) as bundle:
                fresh = patiently(lambda: self._settled(bundle))
                outcome = "the release is there, but was not checked"
                manifest = patiently(lambda: self._read_back(tag, bundle))
                patiently(lambda: self.conclude(tag))
        except OSError as error:
            where = error.filename or self.place(tag)
            raise PublishError(f"publish.registry: {where}: {error.strerror or error}; {outcome}") from error
        uri, digest, files = self.place(tag), manifest["digest"], manifest["files"]
        notice = announce(self.notify, self._event(uri, manifest, verdict, fresh=fresh)) if self.notify else ""
        removed = () if self.keep_local else _weights(run_dir)
        made = Release(uri, tag, checkpoint.lot, digest, files, verdict, checkpoint, fresh, removed, notice)
        if removed:
            release.write_pointer(run_dir, made)  # first, so that a kill leaves no file missing without a reason
            _remove(run_dir, removed)
        return made

    def _settled(self, bundle: Bundle) -> bool:
        """Whether the tag became this release's now; it may have been so before."""
        there = self._there(bundle.tag)
        if there is None and self.deliver(bundle):
            return True
        there = there or self._there(bundle.tag)
        if there is None:
            raise TransientError(f"publish.tag={bundle.tag}: {self.place(bundle.tag)} cannot be read; try again")
        if not release.same(there, bundle.manifest):
            ours, theirs = bundle.manifest, there
            key = "lot" if ours["lot"] != theirs["lot"] else "digest"
            raise PublishError(
                f"publish.tag={bundle.tag}: {self.place(bundle.tag)} holds {key} {theirs[key][: lot.SHORT]}, "
                f"this is {ours[key][: lot.SHORT]}; choose another tag"
            )
        return False

    def _there(self, tag: str) -> Mapping[str, Any] | None:
        try:
            return self.released(tag)
        except DataError as error:
            raise PublishError(f"publish.tag={tag}: what is there is no release: {error}; choose another tag") from None

    def _read_back(self, tag: str, bundle: Bundle) -> Mapping[str, Any]:
        """Read the release as others will, and compare every file with its list."""
        with tempfile.TemporaryDirectory(prefix=".back-", dir=bundle.folder.parent) as scratch:
            try:
                folder = self.fetch(tag, Path(scratch))
                manifest = release.read(folder)
                found = lot.digest_folder(folder, leave_out=(RELEASE, SIGNATURE))
            except DataError as error:
                raise TransientError(f"{self.place(tag)}: published, but cannot be read back: {error}") from None
            found = {name: sha for name, sha in found.items() if not name.startswith(".git")}
            if found != manifest["files"] or not release.same(manifest, bundle.manifest):
                wrong = sorted(
                    name for name in {*found, *manifest["files"]} if found.get(name) != manifest["files"].get(name)
                )
                raise TransientError(f"{self.place(tag)}: published, but reads back different: {', '.join(wrong[:3])}")
            if manifest.get("signed_by") and not (folder / SIGNATURE).is_file():
                raise TransientError(f"{self.place(tag)}: published, but {SIGNATURE} does not come back")
            return manifest

    def _event(self, uri: str, manifest: Mapping[str, Any], verdict: Verdict, *, fresh: bool) -> dict[str, Any]:
        told = {
            key: manifest[key] for key in ("name", "tag", "lot", "digest", "trigger_deployment", "files", "verdict")
        }
        return {"event": "release", "job": self.name, "uri": uri, "fresh": fresh, "passed": verdict.passed, **told}


def patiently(work: Callable[[], T]) -> T:
    """Do something, and do it again a few times where it fails for a moment only.

    Raises:
        PublishError: It kept failing.
    """
    for pause in PAUSES:
        try:
            return work()
        except TransientError as error:
            console.warn(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)
    try:
        return work()
    except TransientError as error:
        raise PublishError(f"{error}; tried {len(PAUSES) + 1} times") from error


def _weights(run_dir: Path) -> tuple[str, ...]:
    """The weights of a run directory's model and package, by relative path."""
    found = [path for folder in release.FOLDERS for pattern in _WEIGHTS for path in (run_dir / folder).rglob(pattern)]
    return tuple(sorted(path.relative_to(run_dir).as_posix() for path in found))


def _remove(run_dir: Path, names: tuple[str, ...]) -> None:
    """Remove published weights, and the checkpoints, which hold the same ones and what led to them."""
    try:
        for name in names:
            (run_dir / name).unlink(missing_ok=True)
        for checkpoint in (run_dir / "checkpoints").glob("*"):
            shutil.rmtree(checkpoint) if checkpoint.is_dir() else checkpoint.unlink()
    except OSError as error:
        console.warn(f"publish.keep_local=false: {error.filename}: {error.strerror}; the release itself is complete")
