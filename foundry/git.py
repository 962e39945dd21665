"""git and git-lfs as programs: without prompts, without hooks, with git-lfs as a filter that nobody had to install."""

import os
import re
import subprocess
import sys
from pathlib import Path

from foundry.errors import DataError
from foundry.store import public

_TIMEOUT = 3600
_REMOTE = re.compile(r"(?P<url>(?:https?|ssh|file)://.+?|[\w.-]+@[\w.-]+:.+?)(?:@(?P<tag>[A-Za-z0-9][\w.-]*))?")
_LFS = {
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.required": "true",
    "core.hooksPath": os.devnull,
    "core.autocrlf": "false",
    "core.symlinks": "false",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "gc.auto": "0",
    "init.defaultBranch": "main",
    "advice.detachedHead": "false",
    "protocol.ext.allow": "never",
}
"""For every command, so that nobody needs `git lfs install`, and no hook of the user's runs."""


def shown(url: str) -> str:
    """A URL without a password or a token in it; the user's name stays where ssh needs it."""
    return url if re.match(r"ssh://[^/:@]+@", url) else public(url)


def split(place: str) -> tuple[str, str] | None:
    """The URL and the tag that `URL@tag` names, the tag empty where there is none; None for what is no git URL."""
    found = _REMOTE.fullmatch(place)
    return (found["url"], found["tag"] or "") if found else None


def clone(url: str, tag: str, folder: Path) -> None:
    """Clone one tag, or the default branch, with its large objects, and have git and git-lfs check all of it.

    Raises:
        DataError: It cannot be cloned, or an object is broken.
    """
    at = ["--branch", tag] if tag else []
    steps = (
        ["clone", "--quiet", "--depth=1", *at, "--", url, str(folder)],
        ["-C", str(folder), "fsck", "--full", "--no-dangling"],
        ["-C", str(folder), "lfs", "fsck"],
    )
    for words in steps:
        done = run(words, folder.parent)
        if done.returncode:
            raise DataError(f"{shown(url)}: {told(done.stderr)}")


def told(said: str) -> str:
    """What git says is wrong, in a line, without passwords."""
    lines = [line for line in public(said).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("fatal:", "error:", "batch response"))]
    return " ".join(errors or lines[-1:])[:300] or "git failed"


def run(words: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run git without prompts, with git-lfs as its filter, and without any hook."""
    here = Path(sys.executable).parent  # where pip puts programs; it is not on the path of `.venv/bin/foundry`
    settings = {f"GIT_CONFIG_KEY_{i}": key for i, key in enumerate(_LFS)}
    values = {f"GIT_CONFIG_VALUE_{i}": value for i, value in enumerate(_LFS.values())}
    environment = {
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        **{
            name: value
            for name, value in os.environ.items()
            if name not in {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
        },
        "PATH": f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{here}",
        "GIT_CONFIG_COUNT": str(len(_LFS)),
        **settings,
        **values,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "0",
        "LC_ALL": "C.UTF-8",
    }
    try:
        return subprocess.run(  # noqa: S603
            ["git", *words],  # noqa: S607
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, 127, "", f"fatal: {error}")
