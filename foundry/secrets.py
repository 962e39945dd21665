"""Secrets that somebody wrote out in a setting: refused, before a file, a log or MLflow could have them.

A setting that refers to the environment, `${oc.env:NAME}`, is recorded as that reference and nothing else.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from foundry.errors import ConfigError

_WORD = r"(?:token|secret|passw(?:or)?d|signature|sig|api_?key|access_?key|credential)"
_NAMED = re.compile(
    r"(?:^|[._])(?:password|passwd|secret|secret_key|api_key|access_key|(?:access|auth|api)_token)$", re.IGNORECASE
)
_SHAPES = {
    "a password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s@:]*:[^/\s@]+@", re.IGNORECASE),
    "a token in a URL": re.compile(rf"\bhttps?://(?:[^/\s@:]+@|\S*[?&][^=&\s]*{_WORD}[^=&\s]*=[^&\s]+)", re.IGNORECASE),
    "a webhook's secret path": re.compile(
        r"https://hooks\.slack\.com/\S+|https://discord(?:app)?\.com/api/webhooks/\S+"
    ),
    "an access key": re.compile(
        r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|hf_[A-Za-z0-9]{30,}|xox[abpr]-[\w-]{10,}|sk-[A-Za-z0-9_-]{20,})\b"
    ),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}

Place = tuple[str | int, ...]


def refuse_written_out(settings: Mapping[str, Any], referred: Collection[Place]) -> None:
    """Refuse settings that hold a secret themselves.

    Args:
        settings: The resolved settings of a job.
        referred: The places that the environment has a part in, which are recorded as references.

    Raises:
        ConfigError: Naming the key, but not the value.
    """
    for place, text in _texts(settings, ()):
        if any(place[: len(known)] == tuple(known) for known in referred):
            continue
        key = ".".join(map(str, place))
        found = "a secret" if _NAMED.search(key) and text else None
        found = found or next((what for what, shape in _SHAPES.items() if shape.search(text)), None)
        if found:
            raise ConfigError(
                f"{key}: holds {found}, which would be recorded; "
                "put it into an environment variable and write ${oc.env:NAME} in its place"
            )


def _texts(node: Any, place: Place) -> Iterator[tuple[Place, str]]:
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for name, value in items:
        yield from _texts(value, (*place, name))
    if isinstance(node, str):
        yield place, node
