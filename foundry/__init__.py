"""foundry: from a base model and a data set to a small, trusted student model.

The names below are loaded on first use, so that importing foundry stays instant.

Example:
    >>> import foundry
    >>> manifest = foundry.compose(["model=tiny", "data.size=64", "examine=none"])  # doctest: +SKIP
    >>> release = foundry.train(manifest)  # doctest: +SKIP
"""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, overload

__version__ = "0.1.0"
__all__ = ["CurateManifest", "MergeManifest", "TrainManifest", "compose", "curate", "merge", "train", "verify"]

if TYPE_CHECKING:
    from foundry.curate import CurateManifest, curate
    from foundry.merge import MergeManifest, merge
    from foundry.train import TrainManifest, train
    from foundry.verify import verify

_HOMES = {
    "CurateManifest": "foundry.curate",
    "MergeManifest": "foundry.merge",
    "TrainManifest": "foundry.train",
    "curate": "foundry.curate",
    "merge": "foundry.merge",
    "train": "foundry.train",
    "verify": "foundry.verify",
}


class Entry(ModuleType):
    """A module that is called like the function of its name: importing it hides that function in this package."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call it: `foundry.train(manifest)` is `foundry.train.train(manifest)`."""
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **options)


@overload
def compose(overrides: Sequence[str] = (), entry: Literal["train"] = "train") -> "TrainManifest": ...
@overload
def compose(overrides: Sequence[str], entry: Literal["curate"]) -> "CurateManifest": ...
@overload
def compose(overrides: Sequence[str], entry: Literal["merge"]) -> "MergeManifest": ...
def compose(overrides: Sequence[str] = (), entry: Literal["train", "curate", "merge"] = "train") -> Any:
    """Compose and check a job as the command line does.

    Args:
        overrides: As on the command line, such as `["method=dora", "method.adapter.rank=8"]`.
        entry: Whose job it is: `foundry train`, `foundry merge` or `foundry curate`.

    Raises:
        ConfigError: A setting is wrong.
    """
    homes = {"train": "foundry.train", "merge": "foundry.merge", "curate": "foundry.curate"}
    return import_module(homes[entry]).compose(overrides)


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'foundry' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
