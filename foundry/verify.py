"""`foundry verify`: recompute a lot offline and say what differs, is missing or is new."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from foundry import Entry, console, git, lot, release, signing
from foundry.config import TARGET, Component, build, resolve
from foundry.errors import ConfigError, DataError, FoundryError
from foundry.provenance import chain
from foundry.release import GITATTRIBUTES, RELEASE, SIGNATURE
from foundry.remote import opened
from foundry.run import rendered
from foundry.shards import TRAIN

State = Literal["ok", "differs", "missing", "new", "unchecked"]
_LFS_POINTER = b"version https://git-lfs"
_STAY_BEHIND = {"removed.jsonl", "quarantine.jsonl"}
"""What a run directory has and a release has not: rows of the data set."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: a file, the lot number, the manifest, the base model, the data."""

    name: str
    state: State
    detail: str = ""

    @property
    def bad(self) -> bool:
        """Whether the artefact is not what its lot says."""
        return self.state in {"differs", "missing", "new"}


def verify(path: str | Path, *, sources: bool = True, key: str | Path | None = None) -> list[Finding]:
    """Recompute the lot of a run directory, a release or a curated set.

    Args:
        path: A folder with a lot.json in it, a clone of a release, `s3://bucket/prefix/name/tag`, `models:/name@alias`
            or `models:/name/version`, or the URL of a git repository with `@tag` behind it.
        sources: Whether the base model and the data set are made again and compared, where they are at
            hand; what is not at hand is `unchecked`.
        key: The public key of whoever signs, PEM. With it, a release without a signature fails.

    Raises:
        DataError: There is no lot that could be read.
        ConfigError: The key cannot be used.
    """
    with opened(str(path)) as folder:
        return _findings(folder, sources=sources, key=Path(key) if key else None)


def _findings(folder: Path, *, sources: bool, key: Path | None) -> list[Finding]:
    record = lot.read(folder)
    findings = [*_numbers(folder, record), *_files(folder, record), *_release(folder, record), *_signature(folder, key)]
    return [*findings, *_sources(folder, record["contents"])] if sources else findings


def report(path: str, key: str | None = None) -> None:
    """Verify and print, with the provenance chain back to the data; what the command line does.

    Raises:
        DataError: Something differs, is missing or is new.
        ConfigError: The key cannot be used.
    """
    with opened(path) as folder:
        findings = _findings(folder, sources=True, key=Path(key) if key else None)
        record, steps = lot.read(folder), chain(folder)
    marks = {"ok": "[green]ok[/]", "unchecked": "[yellow]unchecked[/]"}
    console.findings([(marks.get(f.state, f"[bold red]{f.state}[/]"), f.name, f.detail) for f in findings])
    bad = [finding for finding in findings if finding.bad]
    where = git.shown(path)
    if bad:
        named = ", ".join(f"{finding.name} {finding.state}" for finding in bad[:3])
        raise DataError(f"{where}: {len(bad)} of {len(findings)} checks failed: {named}{', …' if len(bad) > 3 else ''}")
    for name, what in steps:
        console.stage(name, what)
    checked = sum(finding.state == "ok" for finding in findings)
    console.stage("verified", f"lot {record['lot'][: lot.SHORT]} · {checked} checks")


def _compare(name: str, expected: Any, found: Any) -> Finding:
    same = expected == found
    return Finding(
        name,
        "ok" if same else "differs",
        str(found)[:12] if same else f"{str(expected)[:12]} expected, {str(found)[:12]} found",
    )


def _numbers(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    yield _compare("lot number", record.get("lot"), lot.digest(record["contents"]))
    try:
        settings = yaml.safe_load((folder / "manifest.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        yield Finding("manifest", "missing", str(error).splitlines()[0])
        return
    try:
        yield _compare("manifest", record["contents"].get("manifest"), lot.digest(settings))
    except DataError as error:
        yield Finding("manifest", "differs", str(error))
    verdict, card = folder / "verdict.json", folder / "model" / "README.md"
    if verdict.is_file():
        yield _compare("verdict's lot", record.get("lot"), _loaded(verdict).get("lot"))
    if card.is_file() and str(record.get("lot")) not in card.read_text(encoding="utf-8", errors="replace"):
        yield Finding("model card's lot", "differs", "the card does not name this lot")


def _files(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    expected = {**record["contents"]["files"], **record["sealed"]}
    if _is_release(folder):
        expected = {name: sha for name, sha in expected.items() if name not in _STAY_BEHIND}
    moved = _moved(folder)
    for name, sha in sorted(expected.items()):
        path = folder / name
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            yield Finding(name, "differs", "a link, or outside the folder")
        elif path.is_file():
            yield _pointer(path) or _compare(name, sha, lot.digest_file(path))
        elif moved.get(name) == sha:
            yield Finding(name, "unchecked", "kept in the release alone; verify that")
        else:
            yield Finding(name, "missing")
    for top in sorted({"model"} | {name.split("/")[0] for name in record["contents"]["files"]}):
        for name in _present(folder / top, folder):
            if name not in expected:
                yield Finding(name, "new")


def _is_release(folder: Path) -> bool:
    """Whether a folder is a release; a run directory has no release.json, or one that points to a release."""
    return (folder / RELEASE).is_file() and not release.pointer(folder)


def _moved(folder: Path) -> Mapping[str, str]:
    """The files that publishing took out of a run directory, with their digests."""
    there = release.pointer(folder)
    removed, files = there.get("removed"), there.get("files")
    if not isinstance(removed, list) or not isinstance(files, Mapping):
        return {}
    return {name: files[name] for name in removed if isinstance(name, str) and isinstance(files.get(name), str)}


def _pointer(path: Path) -> Finding | None:
    """A finding of its own for a file that a clone has not fetched."""
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) != _LFS_POINTER:
            return None
    return Finding(path.name, "differs", "a git-lfs pointer; run `git lfs pull` in the clone")


def _release(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    """A release lists every file of its folder; a run directory's release.json speaks of another place."""
    path = folder / RELEASE
    if not _is_release(folder):
        return
    try:
        manifest = release.read(folder)
    except DataError as error:
        yield Finding(RELEASE, "differs", str(error))
        return
    yield _compare("release's lot", record.get("lot"), manifest.get("lot"))
    signed = {key: value for key, value in manifest.items() if key != "digest"}
    yield _compare("release's digest", manifest.get("digest"), lot.digest(signed))
    if path.is_symlink() or path.read_bytes() != rendered(manifest).encode():
        yield Finding(RELEASE, "differs", "it is not written as foundry writes it")
    yield from _listed(folder, manifest["files"], {**record["contents"]["files"], **record["sealed"]})
    yield from _unlisted(folder, manifest["files"])


def _listed(folder: Path, listed: Mapping[str, str], checked: Mapping[str, str]) -> Iterator[Finding]:
    for name, sha in sorted(listed.items()):
        path = folder / name
        if name in checked:
            if checked[name] != sha:
                yield Finding(f"{RELEASE}: {name}", "differs", "lot.json has another digest")
        elif path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            yield Finding(name, "differs", "a link, or outside the folder")
        elif path.is_file():
            yield _compare(name, sha, lot.digest_file(path))
        else:
            yield Finding(name, "missing")
    for name in sorted(checked):
        if name not in listed and name not in _STAY_BEHIND:
            yield Finding(f"{RELEASE}: {name}", "differs", "it does not list what lot.json has")


def _unlisted(folder: Path, listed: Mapping[str, str]) -> Iterator[Finding]:
    """What lies in a release although it is in no list; a clone has git's own files too."""
    cloned = (folder / ".git").is_dir()
    for name in _present(folder, folder, leave_out=".git" if cloned else ""):
        if name in listed or name in {RELEASE, SIGNATURE} or name.startswith("model/"):
            continue
        if cloned and name == ".gitattributes" and not (folder / name).is_symlink():
            if (folder / name).read_bytes() != GITATTRIBUTES.encode():
                yield Finding(name, "differs", "it is not what foundry writes")
        else:
            yield Finding(name, "new")


def _signature(folder: Path, key: Path | None) -> Iterator[Finding]:
    """Check the signature with the key of whoever should have made it."""
    path = folder / SIGNATURE
    try:
        signed_by = release.read(folder).get("signed_by") if _is_release(folder) else None
    except DataError:
        return
    if key is None:
        if path.is_symlink() or (signed_by and not path.is_file()):
            yield Finding(SIGNATURE, "missing", "the release was signed")
        elif path.is_file() and not signed_by:
            yield Finding(SIGNATURE, "new", "the release was not signed")
        elif signed_by:
            yield Finding("signature", "unchecked", f"by key {str(signed_by)[:12]}; --key PUBLIC.pem checks it")
        return
    if path.is_symlink() or not path.is_file():
        yield Finding("signature", "missing", "the release is not signed")
        return
    expected = signing.public_fingerprint(key)
    wrong = signing.check(folder, key) or ("" if signed_by == expected else "release.json names another key")
    yield Finding("signature", "differs" if wrong else "ok", wrong or f"by key {expected[:12]}")


def _present(below: Path, folder: Path, leave_out: str = "") -> list[str]:
    """Everything below a folder that is no folder, by path relative to another."""
    found = []
    for root, folders, files in os.walk(below):
        if leave_out and Path(root) == below:
            folders.remove(leave_out)
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        found += [(Path(root) / name).relative_to(folder).as_posix() for name in [*files, *links]]
    return sorted(found)


def _loaded(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, Mapping) else {}


def _sources(folder: Path, contents: Mapping[str, Any]) -> Iterator[Finding]:
    """Make the base model and the rows again from the manifest, references resolved, and compare their digests."""
    try:
        settings = OmegaConf.to_container(OmegaConf.load(folder / "manifest.yaml"), resolve=True)
        data = _component(settings, "data")
        model = _component(settings, "model") if isinstance(settings, dict) and "model" in settings else None
    except (OSError, yaml.YAMLError, ValueError, RecursionError, OmegaConfBaseException, ConfigError) as error:
        yield Finding("sources", "unchecked", str(error).splitlines()[0])
        return
    digests = contents.get("dataset", {})
    if any(name.startswith(f"{TRAIN}/") for name in contents["files"]):
        yield _made_again("rows", lambda: _curated(folder), (digests.get("pruned"), digests.get("eval")))
    if model:
        yield _made_again("base model", lambda: dict(model.fetch().files), contents.get("base", {}).get("files"))
    if digests:  # a merge that nobody examined has no rows
        yield _made_again("data", lambda: data.load().sha256, digests.get("train"))


def _curated(folder: Path) -> tuple[str, str]:
    """The digests of the rows that a curated set's shards hold."""
    files = {TARGET: "foundry.data.files.Files", "path": str(folder), "eval_fraction": 0.0, "max_field_chars": 2**30}
    dataset = _component({"data": files}, "data").load()
    return dataset.sha256, dataset.eval_sha256


def _component(settings: Any, group: str) -> Any:
    node = settings.get(group) if isinstance(settings, Mapping) else None
    if not isinstance(node, Mapping) or TARGET not in node:
        raise ConfigError(f"manifest.yaml: {group}: expected a component")
    cls: type[Component] = resolve(node[TARGET], f"{group}.{TARGET}")
    return build(cls, {key: value for key, value in node.items() if key != TARGET}, group)


def _made_again(name: str, make: Any, expected: Any) -> Finding:
    try:
        found = make()
    except FoundryError as error:
        return Finding(name, "unchecked", f"not at hand: {error}")
    return Finding(
        name, "ok" if found == expected else "differs", "" if found == expected else "is not what the lot was made from"
    )


sys.modules[__name__].__class__ = Entry
