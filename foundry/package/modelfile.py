"""Ollama's Modelfile: written from the chat template, read back, and rendered to see that it says the same.

Grammar: github.com/ollama/ollama/blob/main/docs/modelfile.mdx. An instruction, a space, its argument; arguments of
several lines stand in three double quotes; `#` begins a comment.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from foundry.errors import DataError

INSTRUCTIONS = {"FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES"}
PARAMETERS = {
    "num_ctx": int, "repeat_last_n": int, "repeat_penalty": float, "temperature": float, "seed": int, "stop": str,
    "num_predict": int, "top_k": int, "top_p": float, "min_p": float, "draft_num_predict": int,
}  # fmt: skip
_QUOTES = '"""'
_MARKS = {"system": "\ue000s\ue000", "user": "\ue000u\ue000", "assistant": "\ue000a\ue000"}
_ROLES = ("system", "user", "assistant")


def template(tokenizer: Any) -> str | None:
    """The chat template as Ollama's Go template, or None where it cannot be told so.

    What stands before and after each role's words is found by rendering marks. Conversations of several turns, with and
    without a system prompt, must then come out as transformers renders them.
    """
    try:
        around = _around(tokenizer)
    except (ValueError, TypeError, KeyError, TemplateError):
        return None
    if around is None or any("{{" in text or _QUOTES in text for pair in around.values() for text in pair):
        return None
    if tokenizer.bos_token and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:  # Ollama adds it itself
        before, after = around["system"]
        around["system"] = (before.removeprefix(tokenizer.bos_token), after)
    cases = "".join(
        f'{{{{ {"if" if role == "system" else "else if"} eq .Role "{role}" }}}}{around[role][0]}{{{{ .Content }}}}'
        f"{around[role][1]}"
        for role in _ROLES
    )
    return f"{{{{ range .Messages }}}}{cases}{{{{ end }}}}{{{{ end }}}}{around['prompt'][0]}"


def _around(tokenizer: Any) -> dict[str, tuple[str, str]] | None:
    """What stands before and after each role's words, and as `prompt` before the answer; None if that is not all."""

    def render(*roles: str, prompt: bool = True) -> str:
        messages = [{"role": role, "content": _MARKS[role]} for role in roles]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))

    asked, told = render("system", "user", prompt=False), render(*_ROLES, prompt=False)
    turns = render(*_ROLES, "user", prompt=False)
    if not (told.startswith(asked) and turns.startswith(told)):
        return None
    before, after = _split(turns[len(told) :], "user")
    opening = asked.removesuffix(f"{before}{_MARKS['user']}{after}")
    around = {
        "system": _split(opening, "system"),
        "user": (before, after),
        "assistant": _split(told[len(asked) :], "assistant"),
        "prompt": (render("system", "user")[len(asked) :], ""),
    }
    talks = [("system", "user"), (*_ROLES, "user"), (*_ROLES, "user", "assistant", "user")]
    same = all(
        render(*roles) == "".join(around[r][0] + _MARKS[r] + around[r][1] for r in roles) + around["prompt"][0]
        for roles in talks
    )
    return around if same else None


def _split(text: str, role: str) -> tuple[str, str]:
    before, _, after = text.partition(_MARKS[role])
    return before, after


def default_system(tokenizer: Any) -> str | None:
    """The system prompt that the template itself puts before a conversation without one."""
    user = [{"role": "user", "content": _MARKS["user"]}]
    spoken = [{"role": "system", "content": _MARKS["system"]}, *user]
    try:
        bare, told = (tokenizer.apply_chat_template(m, tokenize=False) for m in (user, spoken))
    except (ValueError, TypeError, KeyError, TemplateError):
        return None
    before, _, after = told.partition(_MARKS["system"])
    if bare.startswith(before) and bare.endswith(after) and len(bare) > len(before) + len(after):
        return str(bare[len(before) : len(bare) - len(after)])
    return None


def write(
    model: str, go_template: str | None, system: str | None, stops: Sequence[str], parameters: Mapping[str, float]
) -> str:
    """The text of a Modelfile for the file `model` beside it."""
    lines = [f"FROM ./{model}"]
    if go_template is not None:
        lines.append(f"TEMPLATE {_QUOTES}{go_template}{_QUOTES}")
    if system:
        lines.append(f"SYSTEM {_QUOTES}{system}{_QUOTES}")
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += [f"PARAMETER {name} {value:g}" for name, value in parameters.items()]
    return "\n".join(lines) + "\n"


def parse(text: str) -> list[tuple[str, str]]:
    """Instructions and arguments of a Modelfile, quotes taken off.

    Raises:
        DataError: It is not what the grammar allows; the line is named.
    """
    found: list[tuple[str, str]] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        word, _, argument = line.strip().partition(" ")
        name, argument = word.upper(), argument.strip()
        if name not in INSTRUCTIONS:
            raise DataError(f"Modelfile:{number}: {word[:40]!r} is no instruction; expected one of {_listed()}")
        if name == "PARAMETER":
            key, _, rest = argument.partition(" ")
            found.append((f"{name} {key}", _unquoted(_whole(rest.strip(), number, lines))))
            _check_parameter(key, found[-1][1], number)
            continue
        value = _unquoted(_whole(argument, number, lines))
        if not value:
            raise DataError(f"Modelfile:{number}: {name} has no argument")
        found.append((name, value))
    if sum(name == "FROM" for name, _ in found) != 1:
        raise DataError("Modelfile: expected FROM once")
    return found


def _whole(argument: str, number: int, lines: Any) -> str:
    """An argument with the lines that its three quotes take in."""
    if not argument.startswith(_QUOTES):
        return argument
    while not (argument.endswith(_QUOTES) and len(argument) >= 2 * len(_QUOTES)):
        following = next(lines, None)
        if following is None:
            raise DataError(f"Modelfile:{number}: three quotes are opened and never closed")
        argument += f"\n{following[1]}"
    return argument


def _unquoted(value: str) -> str:
    for quote in (_QUOTES, '"'):
        if value.startswith(quote) and value.endswith(quote) and len(value) >= 2 * len(quote):
            return value[len(quote) : -len(quote)]
    return value


def _check_parameter(key: str, value: str, number: int) -> None:
    if key not in PARAMETERS:
        raise DataError(f"Modelfile:{number}: there is no parameter {key[:40]!r}")
    try:
        PARAMETERS[key](value)
    except ValueError:
        raise DataError(f"Modelfile:{number}: {key} {value[:40]!r}: expected {PARAMETERS[key].__name__}") from None
    if not value:
        raise DataError(f"Modelfile:{number}: {key} has no value")


def _listed() -> str:
    return ", ".join(sorted(INSTRUCTIONS))


def rendered(go_template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """What Ollama makes of a conversation with a template that `template` wrote."""
    loop, _, prompt = go_template.removeprefix("{{ range .Messages }}").rpartition("{{ end }}{{ end }}")
    cases = dict(re.findall(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}(.*?)(?=\{\{ else if|\Z)', loop, re.DOTALL))
    return "".join(cases[m["role"]].replace("{{ .Content }}", m["content"]) for m in messages) + prompt
