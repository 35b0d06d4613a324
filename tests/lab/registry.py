"""A registry for the hosts of a lab: read-only, over TLS, with a user and a password. What podman needs of it to pull, and no more.

In: archives of `lab.image`, the address of this machine in the lab. Out: a server in a thread, a certificate that the hosts can be told
to trust, and what it was asked for. It can be made to move its tag, and to refuse everything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lab.system import run

TAG = "v1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(slots=True)
class Registry:
    """A registry that serves.

    Attributes:
        asked: (path, user or "", status) of each request.
        tagged: which of the archives the tag v1 stands for, by number.
        refuses: a status that every request is answered with; 0: none.
    """

    address: str
    certificate: Path
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    tagged: int = 0
    refuses: int = 0

    def reference(self, name: str) -> str:
        return f"{self.address}/{name}:{TAG}"

    def docker_config(self, user: str, password: str) -> str:
        """What `.dockerconfigjson` of a pull secret holds."""
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        return json.dumps({"auths": {self.address: {"auth": auth}}})


@contextmanager
def serving(archives: Sequence[Path], ip: str, user: str, password: str, directory: Path) -> Iterator[Registry]:
    """The image of one of the archives under every name, with the tag v1, for those who know the password."""
    key, certificate = directory / "registry.key", directory / "registry.crt"
    run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", "/CN=registry", "-addext", f"subjectAltName=IP:{ip}", "-keyout", str(key), "-out", str(certificate)),
        ]
    )  # fmt: skip
    contents = [_content(archive) for archive in archives]
    blobs = {name: blob for content in contents for name, blob in content.items() if name != TAG}
    expected = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "")
            who = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")[0]
            kind, body = (
                "application/json",
                b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}',
            )
            status = 401
            if registry.refuses:
                status, kind, body = registry.refuses, "application/json", b"{}"
            elif given == expected:
                known = blobs | {TAG: contents[registry.tagged][TAG]}
                status, (kind, body) = 200, known.get(self.path.rpartition("/")[2], ("text/plain", b""))
                if not body and self.path != "/v2/":
                    status = 404
            registry.asked.append((self.path, who, status))
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="registry"')
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer((ip, 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # Each connection shakes hands in its own thread: one that never does holds up nobody.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    registry = Registry(f"{ip}:{server.server_port}", certificate)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _content(archive: Path) -> dict[str, tuple[str, bytes]]:
    """Last part of a path → (type, bytes): the tag v1, and blobs by digest."""
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]
    entry = json.loads(files["manifest.json"])[0]
    config, layers = files[entry["Config"]], [files[name] for name in entry["Layers"]]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _described(CONFIG, config),
            "layers": [_described(LAYER, layer) for layer in layers],
        }
    ).encode()
    return {TAG: (MANIFEST, manifest)} | {
        _digest(blob): (kind, blob) for kind, blob in ((MANIFEST, manifest), (CONFIG, config), *((LAYER, one) for one in layers))
    }  # fmt: skip


def _described(kind: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
