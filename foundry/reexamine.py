"""`foundry examine PATH`: the job that examines a model which is there already, as overrides of `foundry train`."""

from collections.abc import Sequence
from pathlib import Path

from foundry.errors import ConfigError
from foundry.existing import Existing, existing
from foundry.replay import parse, quoted

USAGE = "foundry examine PATH [overrides of foundry train]; PATH is a run directory, a release, an adapter or a model"


def overrides(words: Sequence[str]) -> list[str]:
    """The arguments of `foundry train` that examine what lies at a path.

    A run or release of `foundry train` is asked as its own manifest says, so on the rows that it held out; anything
    else as the shipped defaults say. What is given wins.

    Args:
        words: The path, then overrides and flags.

    Raises:
        ConfigError: There is no path, or a method is given.
        DataError: There is no model at the path.
    """
    if not words or words[0].startswith("-") or "=" in words[0]:
        raise ConfigError(f"expected a path: {USAGE}")
    path, *given = words
    chosen = {override.key_or_group for override in parse([word for word in given if not word.startswith("-")])}
    if "method" in chosen:
        raise ConfigError("method: nothing is trained here; foundry train trains")
    settled = {"job_id": "examine", "method": "none", **_described(existing(Path(path)), chosen)}
    settled = {
        key: value for key, value in {"prune": "none", "publish": "none", **settled}.items() if key not in chosen
    }
    return [*(f"{key}={value if value.isidentifier() else quoted(value)}" for key, value in settled.items()), *given]


def _described(found: Existing, chosen: set[str]) -> dict[str, str]:
    """What says which model is meant, and which base it is for."""
    settings = found.settings
    if settings and "method" in settings:
        return {"manifest": str(found.root / "manifest.yaml"), "method.path": str(found.path)}
    if found.kind == "full":
        return {"model": "local", "model.name": str(found.folder)} if "model" not in chosen else {}
    base = {"model.name": found.base_name} if found.base_name and not {"model", "model.name"} & chosen else {}
    return {**base, "method.path": str(found.path)}
