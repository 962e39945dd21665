"""A git repository with git-lfs: one commit and one annotated tag a release, pushed together.

The tree of the commit is the release and a `.gitattributes`, nothing else, so that a clone of the tag is what
`foundry verify` takes. Large objects go first, then commit and tag in one atomic push; a tag is never moved.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from foundry import git, lot, release
from foundry.errors import PublishError
from foundry.git import shown
from foundry.publish.bundle import Bundle
from foundry.publish.registry import Registry, TransientError
from foundry.release import GITATTRIBUTES, RELEASE

_LOST = re.compile(
    r"already exists|stale info|fetch first|non-fast-forward|cannot lock ref|failed to update ref|"
    r"reference already|atomic|incorrect old value"
)
"""What git says when another writer was faster."""

_BRANCH = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$"


class GitLfsRegistry(Registry):
    """A git repository that anybody can clone.

    Attributes:
        registry: Its URL (https, ssh, file, or user@host:path) or folder; it may be empty.
        branch: The branch that moves to the newest release. Nothing but releases may be on it.
    """

    registry: str = Field(min_length=1)
    branch: str = Field("main", pattern=_BRANCH)

    @field_validator("registry")
    @classmethod
    def _a_remote(cls, registry: str) -> str:
        if registry.startswith("-") or re.match(r"^\w+::", registry):
            raise ValueError(f"found {shown(registry)!r}, expected the URL of a git repository")
        known = ("https://", "http://", "ssh://", "git+ssh://", "file://")
        if "://" in registry and not registry.startswith(known):
            raise ValueError(f"found {shown(registry)!r}, expected a URL with https, ssh or file")
        return registry

    @property
    def _url(self) -> str:
        is_folder = "://" not in self.registry and not re.match(r"^[\w.-]+@[\w.-]+:", self.registry)
        return Path(self.registry).absolute().as_uri() if is_folder else self.registry

    def ready(self) -> None:
        """See that git and git-lfs are here.

        Raises:
            PublishError: One is missing.
        """
        for words, what in ((["--version"], "git"), (["lfs", "version"], "git-lfs")):
            if git.run(words, Path()).returncode:
                raise PublishError(f"publish=git_lfs needs {what}, which is not installed here")

    def place(self, tag: str) -> str:
        """The URL and the tag; a reader clones it."""
        return f"{shown(self.registry)}@{tag}"

    def released(self, tag: str) -> Mapping[str, Any] | None:
        """The `release.json` at the tag, without any large object."""
        refs = self._git(Path(), "ls-remote", "--tags", self._url, f"refs/tags/{tag}").split()
        if not refs:
            return None
        with tempfile.TemporaryDirectory(prefix="foundry-") as scratch:
            folder = Path(scratch)
            self._git(folder, "init", "--quiet")
            self._git(folder, "fetch", "--quiet", "--depth=1", "--no-tags", self._url, f"refs/tags/{tag}")
            shown = git.run(["show", f"FETCH_HEAD:{RELEASE}"], folder)
            return release.parsed(shown.stdout if shown.returncode == 0 else "", f"{self.place(tag)}: {RELEASE}")

    def deliver(self, bundle: Bundle) -> bool:
        """Commit on top of the branch, push the large objects, then branch and tag together."""
        with tempfile.TemporaryDirectory(prefix=".git-", dir=bundle.folder.parent) as scratch:
            folder = Path(scratch)
            self._git(folder, "init", "--quiet")
            self._git(folder, "remote", "add", "origin", self._url)
            tip = self._tip(folder)
            commit = self._commit(folder, bundle, tip)
            self._git(folder, *_author(folder), "tag", "--annotate", "--message", _message(bundle), bundle.tag, commit)
            self._git(folder, "update-ref", f"refs/heads/{self.branch}", commit)
            self._git(folder, "lfs", "push", "--object-id", "origin", *self._objects(folder, commit))
            return self._push(folder, bundle.tag)

    def _tip(self, folder: Path) -> str | None:
        """The commit that the branch is at.

        Raises:
            PublishError: The branch holds something else than releases.
        """
        refs = self._git(Path(), "ls-remote", "--heads", self._url, f"refs/heads/{self.branch}").split()
        if not refs:
            return None
        self._git(folder, "fetch", "--quiet", "--depth=1", "--no-tags", "origin", f"refs/heads/{self.branch}")
        if git.run(["cat-file", "-e", f"FETCH_HEAD:{RELEASE}"], folder).returncode:
            raise PublishError(
                f"publish.branch={self.branch}: {shown(self.registry)} has other things on it; nothing was published; "
                "name a branch for releases, such as publish.branch=releases"
            )
        return self._git(folder, "rev-parse", "FETCH_HEAD").strip()

    def _commit(self, folder: Path, bundle: Bundle, tip: str | None) -> str:
        (folder / ".git" / "info" / "exclude").write_text("", encoding="utf-8")
        tree = ["--git-dir", str(folder / ".git"), "--work-tree", str(bundle.folder)]
        attributes = bundle.folder / ".gitattributes"
        attributes.write_text(GITATTRIBUTES, encoding="utf-8")
        try:
            self._git(bundle.folder, *tree, "add", "--all", "--force", ".")
        finally:
            attributes.unlink()
        parents = ["-p", tip] if tip else []
        written = self._git(folder, "write-tree").strip()
        return self._git(folder, *_author(folder), "commit-tree", written, *parents, "-m", _message(bundle)).strip()

    def _objects(self, folder: Path, commit: str) -> list[str]:
        listed = self._git(folder, "lfs", "ls-files", "--long", commit)
        return sorted({line.split()[0] for line in listed.splitlines()})

    def _push(self, folder: Path, tag: str) -> bool:
        refs = [f"refs/heads/{self.branch}", f"refs/tags/{tag}"]
        pushed = git.run(["push", "--quiet", "--atomic", "origin", *refs], folder)
        if pushed.returncode == 0:
            return True
        if not _LOST.search(pushed.stderr):
            raise self._failed("push", pushed.stderr)
        if self._git(Path(), "ls-remote", "--tags", self._url, f"refs/tags/{tag}").strip():
            return False
        raise TransientError(f"publish.registry: {shown(self.registry)}: another writer moved {self.branch} first")

    def fetch(self, tag: str, folder: Path) -> Path:
        """A fresh clone of the tag, with every large object, checked by git and git-lfs."""
        git.clone(self._url, tag, folder / "clone")
        return folder / "clone"

    def conclude(self, tag: str) -> None:
        """The branch was moved together with the tag."""

    def _git(self, folder: Path, *words: str) -> str:
        """Run git; returns what it printed.

        Raises:
            TransientError: It failed.
        """
        done = git.run(list(words), folder)
        if done.returncode:
            raise self._failed(words[0] if not words[0].startswith("-") else "commit", done.stderr)
        return done.stdout

    def _failed(self, verb: str, said: str) -> TransientError:
        return TransientError(f"publish.registry: {shown(self.registry)}: git {verb}: {git.told(said)}")


def _message(bundle: Bundle) -> str:
    number = str(bundle.manifest["lot"])
    scores = [f"{name}: {m['baseline']:.4g} → {m['measured']:.4g}" for name, m in bundle.manifest["verdict"].items()]
    lines = [f"lot {number}", f"digest {bundle.manifest['digest']}", *scores]
    return f"{bundle.manifest['name']} {bundle.tag} (lot {number[: lot.SHORT]})\n\n" + "\n".join(lines) + "\n"


def _author(folder: Path) -> list[str]:
    """Who commits: whom git knows here, else foundry."""
    known = git.run(["var", "GIT_COMMITTER_IDENT"], folder).returncode == 0
    return [] if known else ["-c", "user.name=foundry", "-c", "user.email=foundry@localhost"]
