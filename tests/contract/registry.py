"""A small image registry that asks for a password, listening inside given namespaces. Each name there is an image of one layer.

The name says how: `broken` answers 500, `slow` sends a layer in pieces over PIECES × PAUSE_S, `stalls` sends half of it and then nothing.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import random
import sys
import tarfile
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USER, PASSWORD = "reader", "sesame"
PIECES, PAUSE_S = 25, 0.2


@cache
def documents(image: str) -> dict[str, tuple[str, bytes]]:
    """Path below /v2/IMAGE/ -> (content type, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("hello")
        info.size = 500_000
        tar.addfile(info, io.BytesIO(random.Random(image).randbytes(info.size)))
    plain, layer = buffer.getvalue(), gzip.compress(buffer.getvalue(), mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"User": "1000"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(plain)]},
        }
    ).encode()
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": len(config),
                "digest": _digest(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    "size": len(layer),
                    "digest": _digest(layer),
                }
            ],
        }
    ).encode()
    return {
        "manifests/1": (kind, manifest),
        f"manifests/{_digest(manifest)}": (kind, manifest),
        f"blobs/{_digest(config)}": ("application/octet-stream", config),
        f"blobs/{_digest(layer)}": ("application/octet-stream", layer),
    }


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
            self._answer(401, "application/json", b"{}", ("WWW-Authenticate", 'Basic realm="test"'))
        elif self.path.rstrip("/") == "/v2":
            self._answer(200, "application/json", b"{}")
        else:
            _, _, name, below = self.path.split("/", 3)
            kind, content = documents(name).get(below, ("", b""))
            if name == "broken":
                self._answer(500, "application/json", b"{}")
            else:
                pace = name if len(content) > 100_000 else ""
                self._answer(200 if kind else 404, kind or "application/json", content or b"{}", pace=pace)

    do_HEAD = do_GET

    def _answer(self, status: int, kind: str, content: bytes, *headers: tuple[str, str], pace: str = "") -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(content))), *headers):
            self.send_header(name, value)
        if kind.endswith("v2+json"):
            self.send_header("Docker-Content-Digest", _digest(content))
        self.end_headers()
        if self.command == "HEAD":
            return
        if pace == "stalls":
            self.wfile.write(content[: len(content) // 2])
            threading.Event().wait()
        size = len(content) // PIECES + 1 if pace == "slow" else len(content)
        for start in range(0, len(content), size or 1):
            self.wfile.write(content[start : start + size])
            if pace == "slow":
                time.sleep(PAUSE_S)

    def log_message(self, *_: object) -> None:
        return


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    sys.stdout.close()
    server.serve_forever()
