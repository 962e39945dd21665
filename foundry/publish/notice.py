"""The notice about a release: a JSON event, signed with HMAC-SHA256, to a URL."""

import hashlib
import hmac
import json
import os
import time
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from foundry import console
from foundry.errors import PublishError
from foundry.store import public

SECRET = "FOUNDRY_NOTIFY_SECRET"  # noqa: S105  # the variable's name
"""The environment variable with the key that notices are signed with."""

HEADER = "X-Foundry-Signature"
"""Holds `sha256=` and the HMAC-SHA256 of the body, in hex."""

PAUSES = (0.5, 2.0, 8.0)
"""Seconds to wait before a notice is sent again."""

_TIMEOUT = 15
_AGAIN = {408, 425, 429}


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would carry the event to another place than the one that was named."""

    def redirect_request(self, *_: Any) -> None:
        return None


def need_secret(url: str | None) -> None:
    """See that a notice can be signed.

    Raises:
        PublishError: There is no secret.
    """
    if url and not os.environ.get(SECRET):
        raise PublishError(f"publish.notify: the environment variable {SECRET} is not set; notices are signed with it")


def announce(url: str, event: Mapping[str, Any]) -> str:
    """Send an event; a notice that nobody takes does not undo the release.

    Returns:
        `sent`, or `failed: ` and why; no part of the URL but the host, for the rest may be secret.
    """
    body = json.dumps(event, ensure_ascii=False).encode()
    mac = hmac.new(os.environ[SECRET].encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", HEADER: f"sha256={mac}", "User-Agent": "foundry"}
    failure = ""
    for pause in (*PAUSES, None):
        failure, again = _post(url, body, headers)
        if not failure:
            return "sent"
        if not again or pause is None:
            break
        time.sleep(pause)
    console.warn(f"publish.notify: the release is published, but the notice failed: {failure}")
    return f"failed: {failure}"


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[str, bool]:
    """Post once; returns what went wrong, and whether it may go well later."""
    request = Request(url, body, dict(headers))  # noqa: S310  # the setting allows http and https alone
    try:
        with build_opener(_NoRedirect).open(request, timeout=_TIMEOUT):
            return "", False
    except HTTPError as error:
        return f"HTTP {error.code}", error.code >= 500 or error.code in _AGAIN
    except (URLError, OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return public(" ".join(str(reason).split()))[:120] or type(error).__name__, True
