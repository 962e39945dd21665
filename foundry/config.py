"""The one reader of `_target_`: turns a composed config into frozen, checked components.

Config is input, so nothing here trusts it: a `_target_` may only name a concrete `Component` that lives
in foundry itself or in an installed plug-in that registered an entry point in `foundry.components`.
The check is made on the resolved class's own module, not on the path that was written.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

import pydantic

from foundry.errors import ConfigError
from foundry.mistakes import listed, nearest, not_installed, shown, wrong_settings

__all__ = [
    "CONF",
    "TARGET",
    "Component",
    "Settings",
    "SettingsError",
    "build",
    "check_hydra",
    "check_swept",
    "component",
    "listed",
    "nearest",
    "resolve",
    "shipped_targets",
]

TARGET = "_target_"
_PACKAGE = Path(__file__).parent
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The folder of the shipped YAML: inside the package when installed, beside it in a checkout."""


class Settings(pydantic.BaseModel):
    """Typed settings: frozen, no unknown keys, no silent conversion between types."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Component(Settings):
    """A class that a config may name with `_target_`; its fields are its settings.

    Attributes:
        home: The package where the classes of an interface live, if it is not the interface's own.
    """

    home: ClassVar[str] = ""


class SettingsError(ConfigError):
    """All that is wrong with a config, in one line."""

    def __init__(self, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more: {'; '.join(problems[1:])})" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = problems


M = TypeVar("M", bound=Settings)


def build(model: type[M], config: Mapping[str, Any], key: str = "") -> M:
    """Build `model` and every component inside `config`, checking all of it before anything runs.

    Args:
        model: The class to build; nested components are named by their `_target_`.
        config: Plain containers, interpolations already resolved.
        key: Where `config` stands in the whole, for messages.

    Raises:
        SettingsError: Naming the full keys, what was found, what is allowed and the nearest right names.
    """
    values: dict[str, Any] = {}
    below: list[str] = []
    for name, value in ((str(name), value) for name, value in config.items()):
        field = model.model_fields.get(name)
        try:
            values[name] = _built(value, field.annotation, f"{key}.{name}" if key else name) if field else value
        except ConfigError as error:
            below += error.problems if isinstance(error, SettingsError) else [str(error)]
    try:
        built = model.model_validate(values)
    except pydantic.ValidationError as error:
        own = wrong_settings(model, error, values, key, leave_out=set(map(str, config)) - values.keys())
        raise SettingsError([*own, *below]) from None
    if below:
        raise SettingsError(below)
    return built


def component(node: Mapping[str, Any], key: str) -> Component:
    """Build the one component that a mapping with a `_target_` describes.

    Raises:
        ConfigError: As `build`.
    """
    built = _built(node, Component, key)
    assert isinstance(built, Component)  # noqa: S101
    return built


def _built(value: Any, annotation: Any, key: str) -> Any:
    """Build the components inside the value of a field of this type; lists become tuples."""
    members = _members(annotation)
    if isinstance(value, (list, tuple)):
        inner = next((get_args(member)[0] for member in members if get_origin(member) in (list, tuple)), None)
        return tuple(_built(item, inner, f"{key}.{i}") for i, item in enumerate(value))
    if not isinstance(value, Mapping):
        return value
    models = tuple(member for member in members if inspect.isclass(member) and issubclass(member, Settings))
    kinds = tuple(model for model in models if issubclass(model, Component))
    if TARGET in value:
        cls = resolve(value[TARGET], f"{key}.{TARGET}", kinds)
        return build(cls, {name: item for name, item in value.items() if name != TARGET}, key)
    if kinds:
        raise ConfigError(f"{key}.{TARGET}: required, but not given; name a class under {listed(_homes(kinds))}")
    if models:
        return build(models[0], value, key)
    inner = next((get_args(member)[1] for member in members if get_origin(member) in (dict, Mapping)), None)
    return {str(name): _built(item, inner, f"{key}.{name}") for name, item in value.items()}


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types that a union is of, or the one type."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def resolve(target: Any, key: str, kinds: tuple[type[Component], ...] = (Component,)) -> type[Component]:
    """Find the component class that a `_target_` names.

    Args:
        target: A dotted name, as it stands in a config.
        key: Where it stands, for messages.
        kinds: What may be named here.

    Raises:
        ConfigError: It is not a string, not under an allowed package, or not a concrete component of these kinds.
    """
    if not kinds:
        raise ConfigError(f"{key}: found {shown(target)}, but no component belongs here; expected plain settings")

    def refused(why: str) -> ConfigError:
        near = nearest(str(target), [name for name in shipped_targets() if name.startswith(tuple(_homes(kinds)))])
        expected = f"expected a component class under {listed(_homes(kinds))} or of an installed plug-in{near}"
        return ConfigError(f"{key}: found {shown(target)}{why}; {expected}")

    if not isinstance(target, str) or not _allowed(target):
        raise refused("")
    cls = _named(target, key)
    if not (inspect.isclass(cls) and issubclass(cls, kinds) and _allowed(f"{cls.__module__}.{cls.__qualname__}")):
        raise refused(", which is none")
    if inspect.isabstract(cls) or cls is Component:
        raise refused(", which is abstract")
    return cls


def shipped_targets() -> set[str]:
    """Every `_target_` that a shipped YAML file names."""
    texts = (path.read_text(encoding="utf-8") for path in CONF.rglob("*.yaml"))
    return {name for text in texts for name in re.findall(rf"\b{TARGET}: (foundry\.[\w.]+)", text)}


def _homes(kinds: tuple[type[Component], ...]) -> set[str]:
    return {"foundry" if kind is Component else kind.home or kind.__module__ for kind in kinds}


def _allowed(dotted: str, packages: tuple[str, ...] = ("foundry",)) -> bool:
    if not all(part.isidentifier() for part in dotted.split(".")):
        return False
    if any(dotted.startswith(f"{package}.") for package in packages):
        return True
    return any(dotted.startswith(f"{plugin.value}.") for plugin in entry_points(group="foundry.components"))


def _named(dotted: str, key: str) -> Any:
    """What a dotted name in an allowed package stands for, None if nothing."""
    module, _, name = dotted.rpartition(".")
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if module == error.name or module.startswith(f"{error.name}."):
            return None
        raise ConfigError(f"{key}: {module} needs {error.name}, which is not installed") from error
    except ImportError as error:
        raise ConfigError(f"{key}: {module} cannot be imported: {error}") from error


_BUILT = ("callbacks", "launcher", "sweeper")
_UNLOGGED = {"version": 1, "root": None, "disable_existing_loggers": False}
_TEXT = re.compile(r"\$\{hydra[.:](job\.(name|num|id)|(run|sweep)\.dir|sweep\.subdir|runtime\.(cwd|output_dir))\}")
_ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "MKL_NUM_THREADS",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TRACKING_URI",
    "OMP_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
    "TRANSFORMERS_OFFLINE",
)


def check_hydra(config: Mapping[str, Any]) -> None:
    """Refuse a `hydra` node with unknown keys, or one that could run anything but an installed Hydra plug-in.

    Hydra instantiates launchers, sweepers and callbacks, hands its logging nodes to
    `logging.config.dictConfig`, and sets environment variables, so all of it is checked before Hydra acts.

    Args:
        config: The node as composed, its interpolations not resolved: they may become anything later.

    Raises:
        ConfigError: Naming the key, the value and what is allowed.
    """
    from hydra.conf import HydraConf

    _check_known(config, HydraConf, "hydra")
    for key, name, value in _leaves(config, "hydra"):
        if name == TARGET:
            _check_plugin(value, key)
        elif key.split(".")[1] in _BUILT and "${" in _TEXT.sub("", str(value)):
            raise ConfigError(f"{key}: found {value!r}, expected a plain value, or one such as ${{hydra.job.name}}")
    built = {name: config[name] for name in ("launcher", "sweeper")}
    for name, node in (built | {f"callbacks.{name}": node for name, node in config["callbacks"].items()}).items():
        if not (isinstance(node, Mapping) and TARGET in node):
            raise ConfigError(f"hydra.{name}: found {shown(node)}, expected a mapping with a {TARGET}")
        _check_ours(node, f"hydra.{name}")
    for section in ("hydra_logging", "job_logging"):
        _check_logging(config[section], f"hydra.{section}")
    _check_sweeper(config["sweeper"])
    _check_job(config["job"])


def check_swept(key: str) -> None:
    """Refuse to sweep over a key that is not one of the job's settings.

    Raises:
        ConfigError: It is one of Hydra's, or names the file that the whole sweep replays.
    """
    name = key.lstrip("+~")
    if name.startswith("hydra") or name in {"manifest", "resume"}:
        raise ConfigError(f"{name}: cannot be swept; expected one value, the same for every job")


def _check_known(node: Mapping[str, Any], schema: Any, key: str) -> None:
    """Refuse what `+hydra.…=…` adds beside Hydra's own settings: Hydra would pass it over in silence."""
    known = {field.name: field.type for field in fields(schema)}
    for name, value in node.items():
        if name not in known and (key, name) != ("hydra", "env"):  # the group env is in no schema
            raise ConfigError(f"{key}.{name}: unknown key{nearest(name, known)} (allowed here: {listed(known)})")
        if is_dataclass(known.get(name)) and isinstance(value, Mapping):
            _check_known(value, known[name], f"{key}.{name}")


def plugin(node: Mapping[str, Any], key: str) -> Any:
    """The class of a launcher or a sweeper.

    Args:
        node: Its settings as composed, after `check_hydra`.
        key: Where they stand.
    """
    return _named(node[TARGET], key)


def _check_plugin(target: Any, key: str) -> None:
    from hydra.experimental.callback import Callback
    from hydra.plugins.plugin import Plugin

    homes = ("hydra._internal.core_plugins", "hydra.experimental.callbacks", "hydra_plugins", "foundry")
    cls = _named(target, key) if isinstance(target, str) and _allowed(target, homes) else None
    if not (inspect.isclass(cls) and issubclass(cls, (Plugin, Callback)) and _allowed(f"{cls.__module__}.x", homes)):
        expected = "expected a launcher, sweeper or callback of Hydra, of an installed plug-in or of foundry"
        raise ConfigError(f"{key}: found {shown(target)}, {expected}")


def _check_ours(node: Mapping[str, Any], key: str) -> None:
    """See that what a plug-in of ours needs is installed, and that its settings are right, before a sweep begins."""
    cls = plugin(node, key)
    needs, settings = getattr(cls, "needs", None), getattr(cls, "settings", None)
    if needs is not None and find_spec(needs[0]) is None:
        raise ConfigError(f"{key.replace('.', '/')}: {not_installed(*needs)}")
    if settings is not None:
        build(settings, {name: value for name, value in node.items() if name != TARGET}, key)


def _check_logging(node: Any, key: str) -> None:
    """A logging node can name classes to call and files to write, and foundry has its own log."""
    settings = node if isinstance(node, Mapping) else {"root": node}
    for name, value in settings.items():
        if name not in _UNLOGGED or value != _UNLOGGED[name]:
            option = key.replace(".", "/")
            raise ConfigError(f"{key}.{name}: found {shown(value)}; foundry has its own log, expected {option}=none")


def _check_sweeper(node: Mapping[str, Any]) -> None:
    size = node.get("max_batch_size")
    if isinstance(size, int) and size < 1:
        raise ConfigError(f"hydra.sweeper.max_batch_size: found {size}, expected 1 or more, or null")
    for key in node.get("params") or {}:
        check_swept(str(key))


def _check_job(node: Mapping[str, Any]) -> None:
    if node["chdir"] not in (None, False):
        raise ConfigError("hydra.job.chdir: found true; the paths of a job start where it is started, expected false")
    if node["env_copy"]:
        raise ConfigError("hydra.job.env_copy: would write the values of variables to disk; jobs inherit them anyway")
    variables = node["env_set"] if isinstance(node["env_set"], Mapping) else {node["env_set"]: None}
    for name in variables:
        if name not in _ENVIRONMENT:
            raise ConfigError(f"hydra.job.env_set.{name}: not allowed (allowed: {listed(_ENVIRONMENT)})")


def _leaves(node: Any, key: str) -> Iterator[tuple[str, str, Any]]:
    items = node.items() if isinstance(node, Mapping) else enumerate(node)
    for name, value in items:
        place = f"{key}.{name}"
        if isinstance(value, (Mapping, list, tuple)) and name != TARGET:
            yield from _leaves(value, place)
        else:
            yield place, str(name), value
