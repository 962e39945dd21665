"""What is wrong with a config, told in plain words: the full key, what was found, what is allowed, the nearest name."""

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import pydantic

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "int_type": "a whole number",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "a mapping",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "text of {max_length} or fewer characters",
    "string_too_short": "text of {min_length} or more characters",
    "string_type": "text",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
    "tuple_type": "a list",
}
"""By pydantic's type of error, what a setting should be."""


_PLUGINS = {
    "hydra/launcher/joblib": ("hydra-joblib-launcher", "joblib"),
    "hydra/launcher/submitit_local": ("hydra-submitit-launcher", "slurm"),
    "hydra/launcher/submitit_slurm": ("hydra-submitit-launcher", "slurm"),
}
"""Options of Hydra that are there once a package is installed: its name, and the extra that brings it."""


def not_installed(package: str, extra: str) -> str:
    """Say that a package is missing, and how to get it."""
    return f"{package} is not installed; pip install 'model-foundry[{extra}]'"


def nearest(name: str, options: Iterable[str]) -> str:
    """Say `; did you mean X?` for the option that looks most like `name`, or nothing."""
    found = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def listed(options: Iterable[str]) -> str:
    """Join names for a message, sorted."""
    return ", ".join(sorted(options)) or "none"


def shown(value: Any) -> str:
    """Write a value as a config would, cut to 80 characters."""
    if isinstance(value, pydantic.BaseModel):
        return f"a {type(value).__module__}.{type(value).__qualname__}"
    plain = {None: "null", True: "true", False: "false"}
    text = plain[value] if value is None or isinstance(value, bool) else repr(value)
    if isinstance(value, (list, tuple)):
        text = f"[{', '.join(shown(item) for item in value)}]"
    return text if len(text) <= 80 else text[:77] + "…"


def models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    """Every model that a field's type speaks of, however deep."""
    if inspect.isclass(annotation) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in models_in(inner)]


def wrong_settings(
    model: type[pydantic.BaseModel],
    error: pydantic.ValidationError,
    values: Mapping[str, Any],
    key: str,
    leave_out: Collection[str] = (),
) -> list[str]:
    """Tell what pydantic found wrong, one line for each key.

    Args:
        model: What was to be made of `values`.
        error: Why it could not be.
        values: The settings.
        key: Where they stand in the whole.
        leave_out: Settings known to be wrong already, which are not in `values`.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for problem in error.errors(include_url=False):
        place = _place(problem["loc"], values)
        if problem["type"] == "missing" and place[0] in leave_out:
            continue
        full = ".".join([key, *place] if key else place)
        said, *expected = _explained(model, problem, place, full)
        found.setdefault(said, []).append((expected[0], expected[1]))
    return [
        said + " or ".join(what for what, _ in expected) + "".join(hint for _, hint in expected)
        for said, expected in found.items()
    ]


def _place(loc: Sequence[str | int], values: Any) -> list[str]:
    """The keys in a problem's location; pydantic puts the members of a union between them."""
    place = []
    for number, step in enumerate(loc):
        last = number == len(loc) - 1
        if isinstance(values, Mapping) and (step in values or last):
            values = values.get(step)
        elif isinstance(values, (list, tuple)) and isinstance(step, int):
            values = values[step]
        else:
            continue
        place.append(str(step))
    return place


def _explained(model: type[pydantic.BaseModel], problem: Any, place: list[str], full: str) -> tuple[str, str, str]:
    """A problem as what is said once for its key, what was expected there, and a hint."""
    if problem["type"] == "extra_forbidden":
        names = _fields_at(model, place[:-1])
        return f"{full}: unknown key", nearest(place[-1], names), f" (allowed here: {listed(names)})"
    if problem["type"] == "missing":
        return f"{full}: required, but not given; set {full}=…", "", ""
    if problem["type"] == "value_error":
        text = problem["msg"].removeprefix("Value error, ")
        return f"{full}: {text}" if full else text, "", ""
    value, context = problem["input"], problem.get("ctx", {})
    expected = _EXPECTED.get(problem["type"], problem["msg"].removeprefix("Input should be ")).format(**context)
    hint = nearest(str(value), re.findall(r"'([^']*)'", str(context.get("expected", ""))))
    if problem["type"] == "string_type" and isinstance(value, (bool, int, float)):
        hint = f"; {full}=\"'{shown(value)}'\" is text"
    return f"{full}: found {shown(value)}, expected ", expected, hint


def _fields_at(model: type[pydantic.BaseModel], place: list[str]) -> list[str]:
    """The field names of the model that stands at `place` below `model`."""
    for part in place:
        field = model.model_fields.get(part)
        inner = models_in(field.annotation) if field else [model]
        if inner:
            model = inner[0]
    return list(model.model_fields)


def explain(error: BaseException, unknown: Callable[[str], str] = "{}: unknown key".format) -> str | None:
    """Say in one line what an error of Hydra, OmegaConf or YAML means, or None where it is none of theirs.

    Args:
        error: What was raised.
        unknown: Tells what is known instead of an unknown key.
    """
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError

    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark
        place = f"{mark.name}:{mark.line + 1}:{mark.column + 1}" if mark else "config"
        return f"{place}: YAML syntax error: {error.problem}"
    if isinstance(error, MissingConfigException):
        return _missing_config(str(error), [str(option) for option in error.options or []])
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not a valid override ({_parser(error)}); expected key=value, +key=value or ~key"
    if isinstance(error, OmegaConfBaseException):
        return _omegaconf(error)
    if isinstance(error, HydraException):
        absent = re.search(r"Could not (?:override|delete)[^']*'([^']+)'(?!.* is )", str(error))
        if absent:
            return unknown(str(getattr(error.__cause__, "full_key", None) or absent[1]))
        return (error.__cause__ and explain(error.__cause__, unknown)) or _composition(str(error))
    if isinstance(error, RecursionError):
        return "a config refers to itself without end"
    if isinstance(error, UnicodeDecodeError):
        return "a config file is not UTF-8 text"
    return None


def first_line(error: BaseException) -> str:
    """The first line of an error's text, with the key that OmegaConf adds; its type where there is no text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = re.search(r"^ *full_key: ([\w.]+)$", str(error), re.MULTILINE)
    return (f"{key[1]}: " if key else "") + (lines[0] if lines else type(error).__name__)


def _missing_config(text: str, options: list[str]) -> str:
    absent = re.search(r"[Cc]ould not (?:find|load) '([^']*)'", text)
    if absent and absent[1] in _PLUGINS:
        return f"{absent[1].rpartition('/')[0]}: {not_installed(*_PLUGINS[absent[1]])}"
    wanted = re.search(r"[Cc]ould not find '([^']*)'", text)
    group = re.search(r"Available options in '([^']*)'", text)
    if not wanted:
        return first_line(ValueError(text))
    name = group[1] if group else wanted[1].rpartition("/")[0]
    option = wanted[1].removeprefix(f"{name}/")
    return f"{name}={option}: no such option{nearest(option, options)} (allowed: {listed(options)})"


def _parser(error: BaseException) -> str:
    text = first_line(error)
    return "it does not follow Hydra's grammar" if text.startswith(("LexerNo", "Error parsing")) else text


def _omegaconf(error: Any) -> str:
    key, text = str(error.full_key or "config"), str(error).partition("\n")[0]
    variable = re.search(r"Environment variable '(.*)' not found", text)
    unknown = re.match(r"Interpolation key '(.*)' not found", text)
    resolver = re.match(r"Unsupported interpolation type (.*)", text)
    if "issing mandatory value" in text:
        key = re.sub(r"\[(\d+)\]", r".\1", text.rpartition(" ")[2] if key == "config" else key)  # as overrides have it
        return f"{key}: required, but not given; set {key}=…"
    if variable:
        return f"{key}: the environment variable {variable[1]} is not set"
    if unknown:
        return f"{key}: ${{{unknown[1]}}} names a key that is not there"
    if resolver:
        return f"{key}: ${{{resolver[1]}:…}} names a resolver that is not there, such as oc.env"
    if "HydraConfig was not set" in text:
        return f"{key}: ${{hydra:…}} is known within a job, not for the sweep as a whole"
    if type(error).__name__ == "GrammarParseError":
        return f"{key}: not a valid interpolation ({text})"
    return f"{key}: {_kind(text.partition('raised while resolving interpolation: ')[2] or text)}"


def _kind(text: str) -> str:
    """Say plainly that a value is of the wrong kind, where that is what OmegaConf says."""
    for pattern, expected in (
        (r"is not a subclass of \w+\. value: (.*)", "a mapping"),
        (r"Value '(.*)' of type '\w+' could not be converted to Integer", "a whole number"),
        (r"Cannot convert '\w+' to string: '(.*)'", "text"),
    ):
        found = re.search(pattern, text)
        if found:
            return f"found {found[1]}, expected {expected}"
    return text


def _composition(text: str) -> str:
    """What is left of Hydra's own messages, where they do not speak the user's language."""
    appended = re.search(r"Could not append to config. An item is already at '(.*)'", text)
    twice = re.search(r"Multiple values for ([^.]*)\. ", text)
    forced = re.search(r"force-add of config groups is not supported: '\+\+(.*)'", text)
    merged = re.search(r"In '(.*)': \w+ raised while composing config:\n(.*)", text)
    if appended:
        return f"{appended[1]}: is set already; write {appended[1]}=… without the +"
    if twice:
        return f"{twice[1]}: chosen twice; write {twice[1]}=… without a +, and `override /{twice[1]}: …` in a file"
    if forced:
        return f"{forced[1]}: a group is chosen without a +"
    return f"{merged[1]}.yaml: {_kind(merged[2])}" if merged else text.partition("\n")[0]
