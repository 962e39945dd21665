"""A git-lfs server on loopback, and an ssh that runs what it is asked for on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SSH = """#!/bin/sh
# What a git host does with a command: git's own are run, git-lfs is sent to the server.
for last; do :; done
case "$last" in
  git-lfs-authenticate*) echo '{{"href": "{url}", "header": {{"Authorization": "Bearer hunter2"}}}}' ;;
  git-lfs-transfer*) exit 127 ;;
  *) exec sh -c "$last" ;;
esac
"""


class Handler(BaseHTTPRequestHandler):
    """The batch API with the basic transfer."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.add(self.headers.get("Authorization"))
        self._answer(json.dumps({"transfer": "basic", "objects": [self._actions(o, asked) for o in asked["objects"]]}))

    def _actions(self, item, asked):
        have = item["oid"] in self.server.objects
        if asked["operation"] == "upload" and have:
            return item
        if asked["operation"] == "download" and not have:
            return {**item, "error": {"code": 404, "message": "not there"}}
        return {**item, "actions": {asked["operation"]: {"href": f"{self.server.url}/{item['oid']}"}}}

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects[hashlib.sha256(content).hexdigest()] = content
        self._answer("")

    def do_GET(self):
        self._answer(self.server.objects[self.path.rpartition("/")[2]])

    def _answer(self, content):
        body = content if isinstance(content, bytes) else content.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def lfs_server(folder: Path) -> Iterator[ThreadingHTTPServer]:
    """Start the server and write `folder`/ssh; the server has `objects` by SHA-256 and the authorizations `seen`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.objects, server.seen = {}, set()
    server.url = f"http://127.0.0.1:{server.server_port}"
    (folder / "ssh").write_text(SSH.format(url=server.url))
    (folder / "ssh").chmod(0o755)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
