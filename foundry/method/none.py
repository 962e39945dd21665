"""No training: a model that is there already, to be examined, packaged and published like one that was trained."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from foundry.compute import Compute
from foundry.existing import existing
from foundry.hardware import Machine, Needs
from foundry.loading import weight_bytes
from foundry.method import Method, Observer, Outlook
from foundry.records import BaseModel, Checkpoint, Pruned, Shape

_LEFT_BEHIND = ("README.md", ".*")
"""The card is written anew; hidden files are no part of a model."""


class Untrained(Method):
    """Takes a model as it is; it learns from no row.

    Attributes:
        path: A run directory, a release, or the folder of an adapter or a model; None for the untouched base.
    """

    shapes: ClassVar[frozenset[Shape]] = frozenset({"instruction", "preference", "text"})
    trains: ClassVar[bool] = False

    path: str | None = Field(None, min_length=1)

    def check(self, config: Callable[[], Mapping[str, Any]], compute: Compute, node: Machine) -> str | None:  # noqa: ARG002
        """See that there is a model at the path.

        Raises:
            DataError: There is none.
        """
        if self.path is not None:
            existing(Path(self.path), "method.path")
        return None

    def estimate(self, pruned: Pruned, base: BaseModel, compute: Compute, node: Machine) -> Needs:  # noqa: ARG002
        """The weights, held as they are while answers are written."""
        held = existing(Path(self.path), "method.path").held(base) if self.path is not None else ""
        return Needs({"weights": weight_bytes(base, node, held)})

    def outlook(
        self,
        pruned: Pruned,
        base: BaseModel,
        compute: Compute,
        node: Machine,
        machine: Machine | None,  # noqa: ARG002
    ) -> Outlook:
        """Say that nothing is trained."""
        needs = self.estimate(pruned, base, compute, node)
        return Outlook(f"nothing; {self.path or base.name} is taken as it is", "", needs)

    def train(
        self,
        pruned: Pruned,  # noqa: ARG002
        base: BaseModel,
        compute: Compute,  # noqa: ARG002
        machine: Machine,  # noqa: ARG002
        run_dir: Path,
        observer: Observer,  # noqa: ARG002
        resume: Path | None = None,  # noqa: ARG002
    ) -> Checkpoint:
        """Put the model into `run_dir/model`, by hard links where the disk allows it.

        Returns:
            The checkpoint; its `lot` is still that of the run or release that it was taken from.

        Raises:
            DataError: There is no model at the path, or it belongs to another base.
        """
        found = Checkpoint(base.path, "full", base, {}, "")
        if self.path is not None:
            found = existing(Path(self.path), "method.path").checkpoint(base)
        scratch = run_dir / ".model.part"
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(
            found.path, scratch, ignore=shutil.ignore_patterns(*_LEFT_BEHIND), copy_function=_linked, symlinks=False
        )
        return replace(found, path=scratch.rename(run_dir / "model"))


def _linked(source: str, target: str) -> None:
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        shutil.copy2(source, target)
