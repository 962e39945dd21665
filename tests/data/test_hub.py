"""Hub datasets: the real client against a small hub on this machine, then without a network from its cache."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from pydantic import ValidationError

from foundry.data.hub import Hub
from foundry.errors import DataError

COMMIT, OTHER = "a" * 40, "b" * 40
API, FILES = "/api/datasets/user/set", f"/datasets/user/set/resolve/{COMMIT}/"
CONTENT = {"data/train.jsonl": b'{"question":"2+2?","answer":"4"}\n{"question":"3+3?","answer":""}\n'}
LOAD = """
import sys
from foundry.data.hub import Hub
from foundry.errors import DataError
try:
    dataset = Hub(name="user/set", revision=sys.argv[1], eval_fraction=0.0, max_bad_fraction=0.5).load()
    bad = dataset.quarantined[0]
    print(len(dataset.train), dataset.sha256, bad.source, bad.line, *dataset.notes, sep="|")
except DataError as error:
    print(error)
"""


def etag(content):
    return hashlib.sha1(content).hexdigest()  # noqa: S324


def entry(path):
    if path not in CONTENT:
        return {"type": "directory", "path": path, "oid": "0" * 40}
    return {"type": "file", "path": path, "size": len(CONTENT[path]), "oid": etag(CONTENT[path])}


class SmallHub(BaseHTTPRequestHandler):
    """One dataset at one commit: the part of the hub's API that its client asks for."""

    def log_message(self, *_):
        pass

    def answer(self, body=b"", **headers):
        self.send_response(404 if "X_Error_Code" in headers else 200)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def entries(self, paths):
        found = [entry(path) for path in paths if any(name.startswith(path) for name in CONTENT)]
        return json.dumps(found).encode()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if path.startswith(f"{API}/tree/{COMMIT}"):
            self.answer(self.entries(CONTENT))
        elif path in (API, f"{API}/revision/{COMMIT}"):
            files = [{"rfilename": name} for name in CONTENT]
            self.answer(json.dumps({"id": "user/set", "sha": COMMIT, "siblings": files}).encode())
        elif path.removeprefix(FILES) in CONTENT:
            body = CONTENT[path.removeprefix(FILES)]
            self.answer(body, ETag=f'"{etag(body)}"', X_Repo_Commit=COMMIT)
        else:
            self.answer(X_Error_Code="RevisionNotFound" if path.startswith("/api") else "EntryNotFound")

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = json.loads(sent)["paths"] if sent.startswith("{") else parse_qs(sent)["paths"]
        self.answer(self.entries([asked] if isinstance(asked, str) else asked))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Loads a commit in a process of its own: `datasets` reads its environment but once."""
    home = tmp_path_factory.mktemp("hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), SmallHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (home / "user" / "set").mkdir(parents=True)  # a folder of that name must not be taken for the dataset

    def load(commit, *, offline):
        names = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home / "cache")}
        switches = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), str(int(offline)))
        environment = {**os.environ, **names, **switches}
        command = [sys.executable, "-c", LOAD, commit]
        done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    yield load
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_commit_is_downloaded_once_and_no_other_is_taken_for_it(loaded):
    assert "HF_HUB_OFFLINE is set and the cache lacks it" in loaded(COMMIT, offline=True)
    found = loaded(COMMIT, offline=False)
    assert found.count("|") == 4, found
    count, _, *rest = found.split("|")
    source = f"hub://user/set@{COMMIT[:12]}#train"
    assert (count, rest) == ("1", [source, "2", f"set@{COMMIT[:12]}#train: 1 question_answer, 1 bad"])
    assert loaded(COMMIT, offline=True) == found
    assert f"found commit {COMMIT[:12]} in the cache" in loaded(OTHER, offline=True)
    assert f"Revision '{OTHER}' doesn't exist" in loaded(OTHER, offline=False)


def test_without_a_network_it_is_a_data_error(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DataError, match=f"user/set at {COMMIT[:12]}: cannot be loaded"):
        Hub(name="user/set", revision=COMMIT).load()


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:12]])
def test_only_a_whole_commit_pins_a_dataset(revision):
    with pytest.raises(ValidationError, match="revision"):
        Hub(name="user/set", revision=revision)
