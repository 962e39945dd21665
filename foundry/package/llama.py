"""A GGUF file in llama.cpp, asked over its OpenAI-compatible server."""

import json
import selectors
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from foundry.errors import DataError
from foundry.package.serve import ADDRESS
from foundry.records import Row

_START = 300.0
_REPLY = 600.0


@dataclass(frozen=True)
class Answer:
    """What the server answered: the text, the token ids written, and how many tokens the prompt had."""

    text: str
    ids: Sequence[int]
    prompt_tokens: int


class Llama:
    """A server for one file, alive inside a `with`.

    Args:
        file: The model.
        threads: CPU threads.
        context: Tokens of prompt and answer together.
        adapter: A LoRA adapter in a GGUF file of its own.
    """

    def __init__(self, file: Path, *, threads: int, context: int, adapter: Path | None = None) -> None:
        self.file = file
        self._settings = {
            "model": str(file.resolve()),
            "context": context,
            "threads": threads,
            "adapter": str(adapter.resolve()) if adapter else "",
        }
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._address = ""

    def __enter__(self) -> Self:
        """Start it.

        Raises:
            DataError: llama.cpp does not take the file.
        """
        self._log = tempfile.TemporaryFile()
        command = [sys.executable, "-P", "-m", "foundry.package.serve", json.dumps(self._settings)]
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        try:
            self._address = self._started()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._stop()

    def _started(self) -> str:
        output = self._process.stdout
        assert output is not None  # noqa: S101
        with selectors.DefaultSelector() as waiting:
            waiting.register(output, selectors.EVENT_READ)
            while waiting.select(_START):
                line = output.readline()
                if line.startswith(ADDRESS):
                    return line.removeprefix(ADDRESS).strip()
                if not line:
                    break
        raise DataError(f"{self.file}: llama.cpp does not load it: {self._last_words()}")

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        return (errors or lines or ["it said nothing"])[0 if errors else -1][:200]

    def _stop(self) -> None:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def peak_memory(self) -> int:
        """The most bytes that the server's process has held; 0 where the system does not tell."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return 0
        peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(peaks[0]) * 1024 if peaks else 0

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Ask one of the server's endpoints.

        Raises:
            DataError: It refuses, or has died over it.
        """
        with self._asked(path, body) as reply:
            return json.load(reply)

    def _asked(self, path: str, body: Mapping[str, Any]) -> Any:
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, json.dumps(body).encode(), head)  # noqa: S310
        try:
            return self._open(request, timeout=_REPLY)
        except urllib.error.HTTPError as error:
            reason = error.read().decode(errors="replace")[:200]
            raise DataError(f"{self.file}: llama.cpp refuses {path}: {reason}") from None
        except OSError as error:
            raise DataError(f"{self.file}: llama.cpp died while answering: {error}") from None

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The token ids of a conversation, through the template in the file, as the chat route makes them."""
        text = self.post("/apply-template", {"messages": list(messages)})["prompt"]
        body = {"content": text, "add_special": True, "parse_special": True}
        return list(self.post("/tokenize", body)["tokens"])

    def answer(self, messages: Sequence[Mapping[str, Any]], max_new_tokens: int, **options: Any) -> Answer:
        """Answer a conversation greedily through the chat route."""
        body = {
            "messages": list(messages), "max_tokens": max_new_tokens, "temperature": 0, "logprobs": True, **options
        }  # fmt: skip
        reply = self.post("/v1/chat/completions", body)
        choice = reply["choices"][0]
        written = (choice.get("logprobs") or {}).get("content") or []
        text = choice["message"].get("content") or ""
        return Answer(text.strip(), [entry["id"] for entry in written], reply["usage"]["prompt_tokens"])

    def answers(self, rows: Sequence[Row], max_new_tokens: int) -> list[str]:
        """Answer the rows' prompts greedily: what an examination asks for."""
        return [self.answer(row["prompt"], max_new_tokens).text for row in rows]

    def log_probabilities(self, ids: Sequence[int], count: int) -> dict[int, float]:
        """Natural log-probabilities of the `count` likeliest tokens after these, by id."""
        body = {"prompt": list(ids), "n_predict": 1, "n_probs": count, "temperature": 0, "cache_prompt": True}
        found = self.post("/completion", body)["completion_probabilities"][0]["top_logprobs"]
        return {entry["id"]: entry["logprob"] for entry in found}

    def pieces(self, messages: Sequence[Mapping[str, Any]], max_new_tokens: int) -> Iterator[tuple[float, str]]:
        """Seconds since the question, and each piece of the answer as it arrives."""
        body = {"messages": list(messages), "max_tokens": max_new_tokens, "temperature": 0, "stream": True}
        begun = time.perf_counter()
        with self._asked("/v1/chat/completions", body) as reply:
            for line in reply:
                event = line.decode().removeprefix("data: ").strip()
                if event.startswith("{"):
                    choices = json.loads(event).get("choices") or [{}]
                    piece = choices[0].get("delta", {}).get("content")
                    if piece:
                        yield time.perf_counter() - begun, piece
