"""A cache of its own for each test, and an embedding service on loopback that speaks the OpenAI API."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

GROUPS = 6
"""Planes in the fake embedding space; texts in different planes are not near at all."""


class Fake:
    """An embedding service. The text `2/30 words` lies in plane 2 at 30 degrees, so cosines are known exactly.

    A text of another form is filed under plane 0 at 0 degrees. `answers` are given instead of vectors, first to last.
    """

    def __init__(self):
        self.seen, self.headers, self.answers = [], [], []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.headers.append((self.path, dict(self.headers), question["model"]))
                status, body = fake.answers.pop(0) if fake.answers else (200, fake.vectors(question["input"]))
                text = body if isinstance(body, str) else json.dumps(body)
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def vectors(self, texts):
        self.seen += texts
        data = [{"object": "embedding", "index": place, "embedding": vector(t)} for place, t in enumerate(texts)]
        return {"object": "list", "data": data[::-1]}

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


def vector(text):
    plane, _, rest = text.partition("/")
    out = [0.0] * (2 * GROUPS)
    place, angle = (int(plane), float(rest.split()[0])) if plane.isdigit() and rest else (0, 0.0)
    out[2 * place], out[2 * place + 1] = 3 * math.cos(math.radians(angle)), 3 * math.sin(math.radians(angle))
    return out


@pytest.fixture(scope="session")
def shared_service():
    fake = Fake()
    yield fake
    fake.stop()


@pytest.fixture
def service(shared_service):
    for heard in (shared_service.seen, shared_service.headers, shared_service.answers):
        heard.clear()
    return shared_service


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings"
