"""Jobs as typed manifests, and runs described by a file: a run's own manifest.yaml, or a job in the older form."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from omegaconf.resolvers import oc
from pydantic import Field, PrivateAttr
from yaml import YAMLError

from foundry.config import TARGET, Settings, build, check_swept, listed, nearest
from foundry.errors import ConfigError
from foundry.mistakes import explain, first_line, shown
from foundry.outcome import settings_of
from foundry.secrets import refuse_written_out
from foundry.sweep import Optimize, Sweep

_OLDER = {
    "method_config.type": "method",
    "job_id": "job_id",
    "base_model": "model.name",
    "method_config.rank": "method.adapter.rank",
    "method_config.strict_hardware_check": "method.strict_hardware_check",
    "publish_target.registry": "publish.registry",
    "publish_target.tag": "publish.tag",
    "publish_target.trigger_deployment": "publish.trigger_deployment",
    "compute.batch_size": "compute.batch_size",
    "compute.grad_accum": "compute.grad_accum",
}
"""The keys of the older form, and what they are called now."""

_NOWHERE = object()
_SHORTEST_SECRET = 4
_Place = tuple[str | int, ...]


class Manifest(Settings):
    """The typed settings of a whole job; it remembers which of them came from the environment.

    Attributes:
        job_id: The job's name, part of the run directory.
        dry_run: Check, read and estimate, but train and write nothing.
        manifest: The file that this job replays.
        sweep: How a sweep over such jobs is run.
        optimize: What it is after.
    """

    job_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    dry_run: bool = False
    manifest: str | None = None
    sweep: Sweep = Sweep()
    optimize: Optimize = Optimize()
    _references: dict[_Place, tuple[str, Any]] = PrivateAttr(default_factory=dict)

    @classmethod
    def from_config(cls, cfg: DictConfig, overrides: Sequence[str]) -> Self:
        """Build the manifest from a composed config.

        Args:
            cfg: The config, with or without its `hydra` node, which is taken out.
            overrides: The overrides that it was composed with, as a list of strings or as Hydra keeps them.

        Raises:
            ConfigError: A setting is wrong.
        """
        if isinstance(overrides, ListConfig):  # whose items would resolve, and show what they refer to
            overrides = cast("list[str]", OmegaConf.to_container(overrides, resolve=False))
        try:
            node = settle(cfg, overrides)
            settings, places = _resolved(node), _from_environment(node)
        except OmegaConfBaseException as error:
            raise ConfigError(explain(error) or first_line(error)) from error
        refuse_written_out(settings, [place for place, _ in places])
        try:
            manifest = build(cls, settings)
        except ConfigError as error:
            raise ConfigError(_masked(str(error), {text: _at(settings, place) for place, text in places})) from None
        built = settings_of(manifest)
        manifest._references.update({place: (text, _at(built, place)) for place, text in places})  # noqa: SLF001
        return manifest

    def record(self) -> dict[str, Any]:
        """The plain settings that build it again; a value from the environment stays the reference it was.

        What a job is does not depend on the sweep that it is part of.
        """
        settings = {name: value for name, value in settings_of(self).items() if name not in {"sweep", "optimize"}}
        record = cast("dict[str, Any]", _escaped(settings))
        for place, (text, value) in self._references.items():
            if place[-1] != TARGET and value is not _NOWHERE and _at(settings, place) == value:
                _at(record, place[:-1])[place[-1]] = text
        return record


def _masked(message: str, values: Mapping[str, Any]) -> str:
    """Put references in the place of the values that they stand for, which may be secret."""
    for text, value in values.items():
        message = message.replace(shown(value), text)
        if isinstance(value, str) and len(value) >= _SHORTEST_SECRET:
            message = message.replace(value, text)
    return message


def _at(node: Any, place: _Place) -> Any:
    try:
        return _at(node[place[0]], place[1:]) if place else node
    except (KeyError, IndexError, TypeError):
        return _NOWHERE


def _escaped(node: Any) -> Any:
    """Write texts so that reading them as a config gives them back: a `$` before `{` gets a backslash."""
    if isinstance(node, Mapping):
        return {name: _escaped(value) for name, value in node.items()}
    if isinstance(node, list):
        return [_escaped(value) for value in node]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if isinstance(node, str) else node


def _resolved(node: DictConfig) -> dict[str, Any]:
    for name in node:  # what fails is to be told by its own key, not by one that refers to it
        _ = node[name]
    settings = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    return {str(name): value for name, value in cast("dict[Any, Any]", settings).items()}


def _from_environment(node: DictConfig) -> list[tuple[_Place, str]]:
    """The places of a resolvable config that the environment has a part in, with the text that stands there."""

    def refuse(*_: Any) -> None:
        raise LookupError

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)
    try:
        return list(_unresolvable(node, ()))
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _unresolvable(node: DictConfig | ListConfig, place: _Place) -> Iterator[tuple[_Place, str]]:
    texts = cast("Any", OmegaConf.to_container(node, resolve=False))
    for name in texts if isinstance(texts, dict) else range(len(texts)):
        try:
            value = node[name]
        except InterpolationResolutionError:
            yield (*place, name), texts[name]
        else:
            if isinstance(value, (DictConfig, ListConfig)):
                yield from _unresolvable(value, (*place, name))


def parse(overrides: Sequence[str], loader: Any = None) -> list[Override]:
    """Read overrides as Hydra does.

    Args:
        overrides: As on the command line.
        loader: Hydra's config loader, where sweeps over `glob(…)` are to be listed.

    Raises:
        ConfigError: One does not follow Hydra's grammar.
    """
    try:
        return OverridesParser.create(loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ConfigError(explain(error) or first_line(error)) from error


def expand(overrides: Sequence[str]) -> list[str]:
    """Turn `manifest=job.yaml` in the older form into the overrides it stands for, the given ones winning.

    A run's own manifest.yaml, or that of the run to resume, takes the place of the composed config later, in
    `settle`. Until then its job id is taken over, so that the new run lies beside the old one, and overrides
    may name keys that only that run has.

    Raises:
        ConfigError: The file is missing, is no YAML mapping, or has an unknown key.
    """
    parsed = parse(overrides)
    named = _file_named(parsed)
    if named is None:
        return list(overrides)
    _refuse_beside_a_file(parsed, named.key_or_group)
    path = _path(named.key_or_group, str(named.value()))
    content = read_manifest(path)
    if _of_a_run(content):
        return [f"job_id={quoted(content['job_id'])}", *(_forced(override) for override in parsed)]
    older = _older(content, path, chosen={override.key_or_group for override in parsed})
    return [*older, *(str(override.input_line) for override in parsed if override.key_or_group != "manifest")]


def _file_named(parsed: Sequence[Override]) -> Override | None:
    """The override that names a file to replay, if there is one."""
    named = {override.key_or_group: override for override in parsed if override.key_or_group in {"manifest", "resume"}}
    for key, override in named.items():
        if override.is_sweep_override():
            check_swept(key)
        if override.value() is not None and (not isinstance(override.value(), str) or not override.value()):
            raise ConfigError(f"{key}: found {shown(override.value())}, expected a path")
    files = [override for override in named.values() if override.value() is not None]
    if len(files) > 1:
        raise ConfigError("manifest: not beside resume=…, which takes the manifest of the run that it goes on with")
    return files[0] if files else None


def _refuse_beside_a_file(parsed: Sequence[Override], key: str) -> None:
    for override in parsed:
        name = override.get_key_element()
        if override.is_delete() or override.package or (name == "experiment" and override.value() is not None):
            hint = "; a key is taken out by setting it to null" if override.is_delete() else ""
            raise ConfigError(f"{name}: not beside {key}=…, whose file is the whole job{hint}")


def _forced(override: Override) -> str:
    """The override so that Hydra takes it although its own config may lack the key; `settle` checks it."""
    setting = "." in override.key_or_group or isinstance(override.value(), dict)
    change = override.type == OverrideType.CHANGE and setting and not override.is_hydra_override()
    return f"++{override.input_line}" if change else str(override.input_line)


def settle(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Give the settings of a job: those of the run it replays, if any, with overrides winning.

    Args:
        cfg: The composed config, with or without its `hydra` node, which is taken out.
        overrides: The overrides it was composed with.

    Raises:
        ConfigError: The file to replay cannot be read, or a chosen experiment says nothing of the job.
    """
    with open_dict(cfg):
        cfg.pop("hydra", None)
    if "experiment" in cfg:
        raise ConfigError("experiment: the chosen file lacks its first line, `# @package _global_`")
    named = next((key for key in ("manifest", "resume") if cfg.get(key)), None)
    if named is None:
        return cfg
    content = read_manifest(_path(named, str(cfg[named])))
    if not _of_a_run(content):
        raise ConfigError(f"{named}: {cfg[named]} is no manifest of a run; the older form is taken on the command line")
    replayed = OmegaConf.create(dict(content))
    groups = cast("dict[Any, Any]", OmegaConf.to_container(cfg, resolve=False))
    replayed.update({key: groups[key] for key in ("manifest", "resume") if key in groups})
    parsed = [override for override in parse(overrides) if not override.is_hydra_override()]
    chosen = [override.key_or_group for override in parsed if _chooses(override, groups)]
    replayed.update({group: groups[group] for group in chosen})
    for override in parsed:
        if override.key_or_group not in (*chosen, "experiment"):
            OmegaConf.update(replayed, override.key_or_group, override.value(), force_add=True)
    return replayed


def _chooses(override: Override, groups: Mapping[Any, Any]) -> bool:
    return isinstance(groups.get(override.key_or_group), dict) and isinstance(override.value(), (str, list))


def _path(key: str, value: str) -> Path:
    return Path(value) if key == "manifest" else Path(value) / "manifest.yaml"


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest file, its interpolations as they stand.

    Raises:
        ConfigError: It is missing or not a YAML mapping with a job_id.
    """
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or first_line(error)}; expected a manifest file") from None
    except (YAMLError, ValueError, RecursionError, OmegaConfBaseException) as error:
        raise ConfigError(explain(error) or f"{path}: not valid YAML: {first_line(error)}") from None
    if not isinstance(content, dict) or "job_id" not in content:
        raise ConfigError(f"{path}: expected a mapping with a job_id, found {shown(content)}")
    return {str(key): value for key, value in content.items()}


def _of_a_run(content: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping) and TARGET in value for value in content.values())


def _older(content: Mapping[str, Any], path: Path, chosen: set[str]) -> list[str]:
    """The overrides that a file in the older form stands for.

    A model or a registry chosen on the command line takes the place of the file's.
    """
    flat = dict(_flat(content))
    for key, value in flat.items():
        if key not in _OLDER:
            raise ConfigError(f"{path}: {key}: unknown key{nearest(key, _OLDER)} (allowed: {listed(_OLDER)})")
        if isinstance(value, list):
            raise ConfigError(f"{path}: {key}: found {shown(value)}, expected one value")
    replaced = chosen - {"method"}  # another method still takes the file's rank
    settings = {_OLDER[key]: value for key, value in sorted(flat.items(), key=lambda pair: list(_OLDER).index(pair[0]))}
    kept = {name: value for name, value in settings.items() if not {name, name.split(".")[0]} & replaced}
    if any(name.startswith("publish.") for name in kept):
        kept = {"publish": _registry(str(kept.get("publish.registry", "")), path), **kept}
    return [f"{name}={quoted(value)}" for name, value in kept.items()]


def _registry(registry: str, path: Path) -> str:
    """The option of the group publish that serves a registry."""
    scheme = registry.partition("://")[0] if "://" in registry else ""
    git = scheme in {"ssh", "file"} or registry.endswith(".git") or re.match(r"[\w.-]+@[\w.-]+:", registry)
    option = {"": "local", "s3": "s3", "sqlite": "mlflow", "http": "mlflow", "https": "mlflow"}.get(scheme)
    option = "git_lfs" if git else option
    if option is None:
        raise ConfigError(
            f"{path}: publish_target.registry: found {registry!r}, expected a folder, s3://… or a git URL"
        )
    return option


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def quoted(value: Any) -> str:
    """Write a YAML value as one of Hydra's override grammar."""
    if isinstance(value, str):
        return str(QuotedString(value, Quote.single).with_quotes())
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
