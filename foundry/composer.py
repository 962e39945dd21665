"""Composes configs as Hydra will, but only to look at them: nothing is built, and no folder is made."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from hydra.version import setbase
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from foundry.config import CONF, SettingsError, check_hydra, check_swept, component
from foundry.errors import ConfigError, FoundryError
from foundry.mistakes import explain, first_line, listed, nearest, shown
from foundry.replay import parse
from foundry.run import reserve

SWEEP_CHECK_LIMIT = 100
"""Of a larger sweep not every job is composed ahead (a tenth of a second each), but every value is."""


@contextmanager
def checking() -> Iterator[None]:
    """While configs are only looked at, `${run_dir:…}` makes no folder, and `${hydra:…}` is what is looked at."""

    def refuse(*_: str) -> NoReturn:
        raise ConfigError("${run_dir:…} is for hydra.run.dir and hydra.sweep.dir alone")

    hydra_before = HydraConfig.instance().cfg
    OmegaConf.register_new_resolver("run_dir", refuse, replace=True)
    try:
        yield
    finally:
        _register_run_dir()
        HydraConfig.instance().cfg = hydra_before


def _register_run_dir() -> None:
    OmegaConf.register_new_resolver("run_dir", reserve, use_cache=True, replace=True)


_register_run_dir()  # on import, for the worker processes of launchers


class Composer:
    """Composes configs exactly as Hydra will, `hydra` node included, without making a folder.

    Attributes:
        loader: Hydra's config loader.
    """

    def __init__(self, config_name: str, folder: str, extra: str | None = None) -> None:
        """Look where configs come from.

        Args:
            config_name: The primary config.
            folder: Where it lies, and the groups.
            extra: A further folder, as with `--config-dir`.

        Raises:
            ConfigError: There is no such folder, or `extra` has a file that `folder` has already.
        """
        setbase("1.3")
        setup_globals()
        search = create_automatic_config_search_path(None, None, folder)
        for flag, path in (("--config-path", folder), ("--config-dir", extra)):
            if path is not None and not Path(path).is_dir():
                raise ConfigError(f"{flag}: there is no folder {path!r}")
        if extra is not None:
            _refuse_shadowed(Path(folder), Path(extra))
            search.prepend("command-line", f"file://{Path(extra).absolute()}", SearchPathQuery(provider="schema"))
        self._name = config_name
        self.loader = ConfigLoaderImpl(search)

    def compose(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        """Compose a config and see that its `hydra` node is harmless.

        Args:
            overrides: As on the command line; sweeps among them are left out.
            mode: As Hydra will run it.

        Raises:
            ConfigError: It cannot be composed, or Hydra must not act on it.
        """
        if not self.loader.repository.config_exists(self._name):
            names = [path.stem for path in CONF.glob("*.yaml")]
            near = nearest(self._name, names)
            raise ConfigError(f"--config-name: there is no {self._name!r}{near} (allowed: {listed(names)})")
        try:
            self._check_searchpath(parse(overrides))
            self._check_overrides(parse(overrides))
            cfg = self._load(overrides, mode)
            check_hydra(cast("dict[str, Any]", OmegaConf.to_container(cfg.hydra, resolve=False)))
            with open_dict(cfg.hydra):
                cfg.hydra.job.update(id="0", num=0)  # as a job would have them
            HydraConfig.instance().set_config(cfg)
            OmegaConf.select(cfg, "hydra.sweep.subdir")  # Hydra looks at it late, with the sweep's folder made
        except FoundryError:
            raise
        except KeyError as error:
            raise ConfigError(f"hydra.job.env_copy: there is no environment variable {error}") from error
        except Exception as error:
            raise ConfigError(self.explained(error, overrides) or first_line(error)) from error
        return cfg

    def has(self, package: str, overrides: Sequence[str]) -> bool:
        """Whether the composed config has a node of this name."""
        return package == "_global_" or OmegaConf.select(self._load(overrides), package) is not None

    def explained(self, error: Exception, overrides: Sequence[str]) -> str | None:
        """Tell an error of composing in one line; None where it is none."""
        return explain(error, lambda key: self._unknown(key, overrides))

    def _load(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        return self.loader.load_configuration(self._name, list(overrides), mode, validate_sweep_overrides=False)

    def _unknown(self, key: str, overrides: Sequence[str]) -> str:
        """Say what is known where a key is not: the chosen component's settings, or the options that have the key."""
        groups = [o for o in parse(overrides) if "." not in o.key_or_group and isinstance(o.value(), str)]
        try:
            cfg = self._load([str(override.input_line) for override in groups])
        except Exception:  # noqa: BLE001  # a group is wrong as well
            cfg = self._load([])
        other = self._experiment_elsewhere(groups)
        if other:
            return other
        group, _, below = key.partition(".")
        parent, _, name = key.rpartition(".")
        if group == "hydra" or not below or not isinstance(cfg.get(group), DictConfig):
            parent, name = (parent, name) if group == "hydra" else ("", group)
            place = OmegaConf.select(cfg, parent) if parent else cfg
            names = {str(option) for option in place} - {"hydra"} if isinstance(place, DictConfig) else set()
            return f"{key}: unknown key{nearest(name, names)} (allowed here: {listed(names)})"
        somewhere = any(f"{name}:" in path.read_text(encoding="utf-8") for path in (CONF / group).glob("*.yaml"))
        options = [option for option in self.loader.get_group_options(group) if somewhere and self._has(option, key)]
        if options:
            return f"{key}: no setting of the chosen {group}; {group}={' or '.join(options)} has it"
        OmegaConf.update(cfg, key, None, force_add=True)
        try:
            component(cast("dict[str, Any]", OmegaConf.to_container(cfg[group])), group)
        except SettingsError as error:
            told = [problem for problem in error.problems if problem.startswith(f"{key}:")]
            if told:
                return told[0]
        return f"{key}: not there; +{key}=… adds it"

    def _experiment_elsewhere(self, chosen: Sequence[Override]) -> str | None:
        """Say so where the chosen experiment is another entry's: they lie in one folder."""
        names = [str(override.value()) for override in chosen if override.key_or_group == "experiment"]
        for entry in sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != self._name) if names else ():
            try:
                self.loader.load_configuration(
                    entry, [f"experiment={names[0]}"], RunMode.RUN, validate_sweep_overrides=False
                )
            except Exception:  # noqa: BLE001, S112  # it is not that entry's either
                continue
            return f"experiment={names[0]}: is a job of foundry {entry}, not of foundry {self._name}"
        return None

    def _has(self, option: str, key: str) -> bool:
        """Whether this option of the key's group has the key."""
        parent, _, name = key.rpartition(".")
        place = OmegaConf.select(self._load([f"{key.partition('.')[0]}={option}"]), parent)
        return isinstance(place, DictConfig) and name in list(place)

    def _check_searchpath(self, parsed: Sequence[Override]) -> None:
        """See that what is added to the search path are folders: `pkg://` would import a package."""
        given = [override for override in parsed if override.key_or_group == "hydra.searchpath"]
        primary = self.loader.repository.load_config(self._name)
        found = OmegaConf.select(primary.config, "hydra.searchpath") if primary else None
        for override in given:
            if override.get_key_element() != "hydra.searchpath":
                raise ConfigError("hydra.searchpath: is set without a +")
            found = override.value()
        if found is not None and not isinstance(found, (list, ListConfig)):
            raise ConfigError(f"hydra.searchpath: found {shown(found)}, expected a list of folders")
        for entry in found or ():
            if not Path(str(entry).removeprefix("file://")).is_dir():
                raise ConfigError(f"hydra.searchpath: found {shown(entry)}, expected a folder that is there")

    def _check_overrides(self, parsed: Sequence[Override]) -> None:
        """Catch what Hydra stumbles over without saying where."""
        for override in parsed:
            key, value = override.key_or_group, override.value()
            if not key:
                raise ConfigError(f"{override.input_line}: not a valid override; expected key=value")
            if key.startswith("hydra.sweeper.params"):
                raise ConfigError("hydra.sweeper.params: is for files; on the command line, -m key=a,b sweeps")
            if override.is_sweep_override() or override.is_delete() or isinstance(value, (str, list, dict)):
                continue
            if self.loader.repository.group_exists(key):
                options = self.loader.get_group_options(key)
                raise ConfigError(f"{key}: found {shown(value)}, expected an option (allowed: {listed(options)})")


def _refuse_shadowed(folder: Path, extra: Path) -> None:
    """Refuse a file that would never be read, since the shipped one of its name comes first."""
    if folder.resolve() == extra.resolve():
        return
    for path in folder.rglob("*.yaml"):
        name = path.relative_to(folder)
        if (extra / name).is_file():
            raise ConfigError(
                f"--config-dir: {extra / name} would not be read, foundry has a {name}; give it another name"
            )


def jobs(composer: Composer, cfg: DictConfig, overrides: Sequence[str]) -> Iterator[list[str]]:
    """The overrides of each job of a sweep; of a large one, those jobs that show every value once."""
    given = parse([*swept(cfg), *overrides], composer.loader)
    values = {override.get_key_element(): _values(override) for override in given}
    if math.prod(map(len, values.values())) <= SWEEP_CHECK_LIMIT:
        yield from (list(job) for job in itertools.product(*values.values()))
        return
    first = {key: options[0] for key, options in values.items()}
    for key, options in values.items():
        yield from (list((first | {key: option}).values()) for option in options[len(options) > 1 :])
    yield list(first.values())


def swept(cfg: DictConfig) -> list[str]:
    """What a file gives a sweep to vary, as overrides."""
    params = OmegaConf.to_container(cfg.hydra.sweeper).get("params") or {}  # type: ignore[union-attr]
    return [f"{key}={value}" for key, value in params.items() if isinstance(value, str | int | float)]


def _values(override: Override) -> list[str]:
    """The overrides that a sweep over one key stands for; of an interval, its ends.

    Raises:
        ConfigError: The key cannot be swept, or there is no value.
    """
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [str(override.input_line)]
    check_swept(key)
    sweep: Any = override.value()
    found = [sweep.start, sweep.end] if override.is_interval_sweep() else override.sweep_string_iterator()
    values = [f"{key}={value}" for value in found]
    if not values:
        raise ConfigError(f"{key}: {override.get_value_string()} gives no value to sweep over")
    return values
