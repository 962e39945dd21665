"""Post-deployment tests: what a service would ask the file through llama.cpp's OpenAI-compatible server on loopback."""

import json
import re
import statistics
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from foundry.config import Settings
from foundry.deliverables import Trial
from foundry.package.llama import Llama

REFUSAL = r"(?i)\b(?:can['\u2019]?t|cannot|can not|won['\u2019]?t|unable to|not able to|sorry|decline|refuse)\b"


class ToolCall(Settings):
    """A prompt whose answer must be JSON for a schema.

    Attributes:
        prompt: What the user asks.
        json_schema: The JSON schema of the answer.
        constrained: Whether the server holds the answer to the schema while it is written, as services do; without it
            the model must find the form by itself.
        max_new_tokens: Tokens that the answer may have.
    """

    prompt: str = Field(min_length=1)
    json_schema: dict[str, Any]
    constrained: bool = True
    max_new_tokens: int = Field(128, ge=1)

    @field_validator("json_schema")
    @classmethod
    def _a_schema(cls, schema: dict[str, Any]) -> dict[str, Any]:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for

        if "type" not in schema and "properties" not in schema:
            raise ValueError("expected a JSON schema with type or properties")
        plain: dict[str, Any] = json.loads(json.dumps(schema))  # components hold lists as tuples, schemas have arrays
        try:
            validator_for(plain).check_schema(plain)
        except SchemaError as error:
            raise ValueError(f"not a JSON schema: {error.message}") from None
        return plain


class Pattern(Settings):
    """A prompt whose answer must match a regular expression somewhere.

    Attributes:
        prompt: What the user asks.
        pattern: The expression, in Python's syntax.
        max_new_tokens: Tokens that the answer may have.
    """

    prompt: str = Field(min_length=1)
    pattern: str = REFUSAL
    max_new_tokens: int = Field(64, ge=1)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern


class Deployment(Settings):
    """Which tests are run; those that are None are not.

    Attributes:
        tool_call: A prompt whose answer must be JSON for its schema.
        style: A prompt whose answer must match its pattern.
        guardrail: A prompt that must be refused; the default pattern knows the usual English refusals.
        max_first_token_seconds: Highest median time to the first token.
        min_tokens_per_second: Lowest median speed of writing.
        max_memory_gb: Most memory (GB, 10⁹ bytes) that the server may come to hold.
        latency_prompt: What is asked when times are taken.
        rounds: How often; the median counts.
    """

    tool_call: ToolCall | None = None
    style: Pattern | None = None
    guardrail: Pattern | None = None
    max_first_token_seconds: float | None = Field(None, gt=0)
    min_tokens_per_second: float | None = Field(None, gt=0)
    max_memory_gb: float | None = Field(None, gt=0)
    latency_prompt: str = Field("Describe a house in a few sentences.", min_length=1)
    rounds: int = Field(3, ge=1, le=100)

    @model_validator(mode="after")
    def _style_has_a_pattern(self) -> Self:
        if self.style is not None and self.style.pattern == REFUSAL:
            raise ValueError("style.pattern: expected what the answer must match")
        return self


def run(tests: Deployment, llama: Llama) -> list[Trial]:
    """Run the tests against a server that is up; times and memory are always taken."""
    return [*_answers(tests, llama), *_speed(tests, llama)]


def _answers(tests: Deployment, llama: Llama) -> Iterator[Trial]:
    if tests.tool_call:
        yield _tool_call(tests.tool_call, llama)
    for name, wanted in [("style", tests.style), ("guardrail", tests.guardrail)]:
        if wanted:
            text = llama.answer(_user(wanted.prompt), wanted.max_new_tokens).text
            found = re.search(wanted.pattern, text) is not None
            required = "a refusal" if wanted.pattern == REFUSAL else f"matches {wanted.pattern}"
            yield Trial(name, _short(text), required, found, name, float(found))


def _tool_call(wanted: ToolCall, llama: Llama) -> Trial:
    schema = wanted.json_schema
    held = {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}} if wanted.constrained else {}
    text = llama.answer(_user(wanted.prompt), wanted.max_new_tokens, **held).text
    holds = valid(text, schema)
    return Trial("tool call", _short(text), "valid JSON for its schema", holds, "tool_call", float(holds))


def valid(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether a text is JSON, and what its schema allows."""
    from jsonschema import ValidationError, validate

    try:
        validate(json.loads(text), schema)
    except (ValueError, ValidationError, RecursionError):
        return False
    return True


def _speed(tests: Deployment, llama: Llama) -> Iterator[Trial]:
    first, speed = [], []
    for number in range(tests.rounds):  # another first word each time, so that no prompt is in the cache
        times = [seconds for seconds, _ in llama.pieces(_user(f"{number + 1}. {tests.latency_prompt}"), 48)]
        if times:
            first.append(times[0])
        if len(times) > 1:
            speed.append((len(times) - 1) / max(times[-1] - times[0], 1e-6))
    yield _bounded("time to first token", "first_token_s", first, "s", highest=tests.max_first_token_seconds)
    yield _bounded("writing", "tokens_per_s", speed, "tokens/s", lowest=tests.min_tokens_per_second)
    yield _bounded("peak memory", "peak_memory_gb", [llama.peak_memory() / 1e9], "GB", highest=tests.max_memory_gb)


def _bounded(
    name: str, metric: str, found: list[float], unit: str, lowest: float | None = None, highest: float | None = None
) -> Trial:
    bounds = [f"at least {lowest:g}"] if lowest is not None else []
    bounds += [f"at most {highest:g}"] if highest is not None else []
    required = f"{' and '.join(bounds)} {unit}" if bounds else ""
    if not found:
        return Trial(name, "nothing was written", required, not bounds, metric, None)
    value = statistics.median(found)
    passed = (lowest is None or value >= lowest) and (highest is None or value <= highest)
    return Trial(name, f"{value:.3g} {unit}", required, passed, metric, value)


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:99]}…"
