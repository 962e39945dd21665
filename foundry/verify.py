"""`foundry verify`: recompute a lot offline and say what differs, is missing or is new."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from foundry import Entry, console, lot
from foundry.config import TARGET, Component, build, resolve
from foundry.errors import ConfigError, DataError, FoundryError
from foundry.run import rendered
from foundry.shards import TRAIN

State = Literal["ok", "differs", "missing", "new", "unchecked"]
_RELEASE = "release.json"
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


def verify(path: str | Path, *, sources: bool = True) -> list[Finding]:
    """Recompute the lot of a run directory or a release.

    Args:
        path: The folder, with a lot.json in it.
        sources: Whether the base model and the data set are made again and compared, where they are at
            hand; what is not at hand is `unchecked`.

    Raises:
        DataError: There is no lot that could be read.
    """
    folder = Path(path)
    record = lot.read(folder)
    findings = [*_numbers(folder, record), *_files(folder, record), *_release(folder, record)]
    return [*findings, *_sources(folder, record["contents"])] if sources else findings


def report(path: str) -> None:
    """Verify and print; what the command line does.

    Raises:
        DataError: Something differs, is missing or is new.
    """
    findings = verify(path)
    marks = {"ok": "[green]ok[/]", "unchecked": "[yellow]unchecked[/]"}
    console.findings([(marks.get(f.state, f"[bold red]{f.state}[/]"), f.name, f.detail) for f in findings])
    bad = [finding for finding in findings if finding.bad]
    if bad:
        named = ", ".join(f"{finding.name} {finding.state}" for finding in bad[:3])
        raise DataError(f"{path}: {len(bad)} of {len(findings)} checks failed: {named}{', …' if len(bad) > 3 else ''}")
    checked = sum(finding.state == "ok" for finding in findings)
    console.stage("verified", f"lot {lot.read(Path(path))['lot'][: lot.SHORT]} · {checked} checks")


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
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        yield Finding("manifest", "missing", str(error).splitlines()[0])
        return
    yield _compare("manifest", record["contents"].get("manifest"), lot.digest(settings))
    verdict, card = folder / "verdict.json", folder / "model" / "README.md"
    if verdict.is_file():
        yield _compare("verdict's lot", record.get("lot"), _loaded(verdict).get("lot"))
    if card.is_file() and str(record.get("lot")) not in card.read_text(encoding="utf-8", errors="replace"):
        yield Finding("model card's lot", "differs", "the card does not name this lot")


def _files(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    expected = {**record["contents"]["files"], **record["sealed"]}
    if (folder / _RELEASE).is_file() and not _is_run(folder):
        expected = {name: sha for name, sha in expected.items() if name not in _STAY_BEHIND}
    for name, sha in sorted(expected.items()):
        path = folder / name
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            yield Finding(name, "differs", "a link, or outside the folder")
        elif path.is_file():
            yield _compare(name, sha, lot.digest_file(path))
        else:
            yield Finding(name, "missing")
    for top in sorted({"model"} | {name.split("/")[0] for name in record["contents"]["files"]}):
        for name in _present(folder / top, folder):
            if name not in expected:
                yield Finding(name, "new")


def _release(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    """A release lists every file of its folder; a run directory's release.json speaks of another place."""
    path = folder / _RELEASE
    if not path.is_file() or _is_run(folder):
        return
    manifest = _loaded(path)
    listed = manifest.get("files")
    if not isinstance(listed, Mapping):
        yield Finding(_RELEASE, "differs", "it lists no files")
        return
    yield _compare("release's lot", record.get("lot"), manifest.get("lot"))
    signed = {key: value for key, value in manifest.items() if key != "digest"}
    yield _compare("release's digest", manifest.get("digest"), lot.digest(signed))
    if path.read_text(encoding="utf-8") != rendered(manifest):
        yield Finding(_RELEASE, "differs", "it is not written as foundry writes it")
    checked = {**record["contents"]["files"], **record["sealed"]}
    for name, sha in sorted(listed.items()):
        if name in checked:
            if checked[name] != sha:
                yield Finding(f"{_RELEASE}: {name}", "differs", "lot.json has another digest")
        elif (folder / name).is_file():
            yield _compare(name, sha, lot.digest_file(folder / name))
        else:
            yield Finding(name, "missing")
    for name in _present(folder, folder):
        if name not in listed and name != _RELEASE and not name.startswith("model/"):
            yield Finding(name, "new")


def _is_run(folder: Path) -> bool:
    """Whether it is a run directory: a merge has no checkpoints, but every run has its log."""
    return (folder / "checkpoints").is_dir() or (folder / "foundry.log").is_file()


def _present(below: Path, folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in sorted(below.rglob("*")) if p.is_symlink() or not p.is_dir()]


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
    except (OSError, yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException, ConfigError) as error:
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
