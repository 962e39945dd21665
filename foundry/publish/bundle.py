"""A release put together in a folder of its own, before any registry hears of it."""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry import lot, release
from foundry.errors import DataError, PublishError
from foundry.records import Checkpoint, Verdict, plain
from foundry.release import FOLDERS, PAPERS, RELEASE
from foundry.run import clear_abandoned
from foundry.signing import fingerprint, sign


@dataclass(frozen=True)
class Bundle:
    """What is published.

    Attributes:
        folder: Every file of the release, `release.json` and the signature included.
        manifest: The content of its `release.json`.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def tag(self) -> str:
        """The tag that it wants."""
        return str(self.manifest["tag"])

    def names(self) -> list[str]:
        """Every file, those that others refer to first and `release.json` last."""
        present = [path for path in self.folder.rglob("*") if path.is_file()]
        return sorted(
            (path.relative_to(self.folder).as_posix() for path in present), key=lambda name: (name == RELEASE, name)
        )


@contextmanager
def assembled(
    run_dir: Path, checkpoint: Checkpoint, verdict: Verdict, name: str, tag: str, key: str | None, **more: Any
) -> Iterator[Bundle]:
    """Put a release together in a scratch folder of the run directory, which is removed afterwards.

    Args:
        run_dir: Where its files are.
        checkpoint: What is published.
        verdict: What let it pass.
        name: The release's name.
        tag: Its tag.
        key: A private key to sign it with, if it is to be signed.
        more: What else `release.json` says.

    Raises:
        PublishError: The run directory is not what its lot says.
    """
    clear_abandoned(run_dir, "outgoing")
    outgoing = run_dir / f".outgoing-{os.getpid()}-{secrets.token_hex(4)}"
    scratch = outgoing / name  # a signature names it
    scratch.mkdir(parents=True)
    try:
        for folder in FOLDERS:
            if (run_dir / folder).is_dir():
                shutil.copytree(run_dir / folder, scratch / folder, copy_function=_linked, symlinks=True)
        for file in PAPERS:
            if (run_dir / file).is_file():
                _linked(run_dir / file, scratch / file)
        try:
            files = lot.digest_folder(scratch)
            _compare(run_dir, files, checkpoint.lot)
        except DataError as error:
            raise PublishError(f"{error}; nothing was published") from None
        scores = {m.name: plain(m) | {"samples": []} for m in verdict.measurements}
        signed_by = fingerprint(Path(key)) if key else None
        manifest = release.described(name, tag, checkpoint.lot, files, **more, verdict=scores, signed_by=signed_by)
        (scratch / RELEASE).write_bytes(release.text(manifest))
        if key:
            sign(scratch, Path(key))
        yield Bundle(scratch, manifest)
    finally:
        shutil.rmtree(outgoing, ignore_errors=True)


def _linked(source: str | Path, target: str | Path) -> None:
    """A second name for a file, or a copy where the disk knows no such thing."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)


def _compare(run_dir: Path, files: Mapping[str, str], number: str) -> None:
    """See that what is published is what was examined: the lot, and the digest of every file it knows."""
    record = lot.read(run_dir)
    if record.get("lot") != number:
        raise PublishError(
            f"{run_dir / lot.LOT}: not the lot {number[: lot.SHORT]} that was examined; nothing was published"
        )
    for name, sha in {**record["sealed"], **record["contents"]["files"]}.items():
        known = name in PAPERS or name.split("/")[0] in FOLDERS
        if known and files.get(name) != sha:
            state = "differs from" if name in files else "is missing, but in"
            raise PublishError(f"{run_dir / name}: {state} the lot that was examined; nothing was published")
