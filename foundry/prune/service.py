"""An embedder behind a URL that speaks the OpenAI embeddings API (POST …/embeddings)."""

import json
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from foundry.errors import ConfigError, DataError
from foundry.lot import digest
from foundry.prune.embedder import Embedder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TEXTS = 256
_PAUSES = (1.0, 4.0, 15.0)
"""Seconds to wait before asking again, where the service is busy or broken for a moment."""

_TIMEOUT = 120


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would carry the key to another place."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Service(Embedder):
    """Vectors of a model that runs elsewhere; the texts are sent there."""

    def __init__(self, url: str, model: str, variable: str, pauses: Sequence[float] = _PAUSES) -> None:
        self._url = url.rstrip("/").removesuffix("/embeddings") + "/embeddings"
        self._model, self._pauses = model, pauses
        self._key = os.environ.get(variable, "")
        place = urlsplit(url)
        if self._key and place.scheme != "https" and place.hostname not in {"127.0.0.1", "::1", "localhost"}:
            raise ConfigError(f"prune.embedder: {url}: would send the key in {variable} unencrypted; expected https://")
        if place.username or place.password or place.query:
            raise ConfigError(f"prune.embedder: expected a URL without a key in it; put the key into {variable}")
        self.name = f"{model} at {place.hostname}"
        self.digest = digest([self._url, model])

    def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Ask for the vectors, some hundred texts at a time.

        Raises:
            ConfigError: The service refuses the key, the model or the path.
            DataError: It cannot be reached, or its answer is not one vector for each text.
        """
        import numpy as np

        parts = [self._vectors(texts[start : start + _TEXTS]) for start in range(0, len(texts), _TEXTS)]
        try:
            return np.concatenate(parts)
        except ValueError:
            raise DataError(f"{self._url}: answered with vectors of several sizes") from None

    def _vectors(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        import numpy as np

        answer = self._answer({"model": self._model, "input": list(texts), "encoding_format": "float"})
        try:
            rows = {int(item["index"]): item["embedding"] for item in answer["data"]}
            vectors = np.array([rows[place] for place in range(len(texts))], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self._url}: expected one embedding for each of {len(texts)} texts ({error!r})") from None
        if vectors.ndim != 2 or not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
            raise DataError(f"{self._url}: expected finite vectors that are not zero")
        return vectors

    def _answer(self, question: Any) -> Any:
        for pause in (*self._pauses, None):
            try:
                return self._ask(question)
            except HTTPError as error:
                said = error.read(300).decode("utf-8", "replace").strip()
                if error.code in (401, 403, 404) or 300 <= error.code < 400:
                    raise ConfigError(f"prune.embedder: {self._url} answered {error.code}: {said}") from None
                if pause is None or (error.code < 500 and error.code != 429):
                    raise DataError(f"{self._url}: answered {error.code}: {said}") from None
            except (URLError, TimeoutError, ConnectionError) as error:
                if pause is None:
                    reason = getattr(error, "reason", error)
                    raise DataError(f"{self._url}: cannot be reached: {reason}; is the service running?") from None
            except ValueError as error:
                raise DataError(f"{self._url}: the answer is not JSON ({error})") from None
            time.sleep(pause)
        raise AssertionError

    def _ask(self, question: Any) -> Any:
        request = Request(self._url, json.dumps(question).encode(), {"Content-Type": "application/json"})  # noqa: S310
        if self._key:
            request.add_header("Authorization", f"Bearer {self._key}")
        with build_opener(_NoRedirect).open(request, timeout=_TIMEOUT) as answer:
            return json.loads(answer.read())
