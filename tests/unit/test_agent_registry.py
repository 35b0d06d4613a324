"""Tags and what they stand for: a registry is asked for a digest as Podman would ask it, and a pinned image is what a container gets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from nodeagent import registry
from nodeagent.imagefile import digest_of
from nodeagent.images import Images, PullTrouble, pinned_reference
from nodeagent.protocol import IMAGE_PIN, MANIFEST_PIN
from nodeagent.registry import Place, RegistryTrouble, place_of
from nodeagent.runtime import RegistryAuth
from tests.fakes.podman import Behaviour, FakePodman, Faults
from tests.simloop import simulate
from tests.unit.agentworld import WorldClock

AUTH = RegistryAuth("puller", "canary-password")
MANIFEST = b'{"schemaVersion": 2}'
DIGEST = digest_of(MANIFEST)


class Registry:
    """What it does with a request for a manifest is its `mode`."""

    def __init__(self, directory: Path, *, encrypted: bool = False) -> None:
        self.mode = "open"
        self.realm = self.leads_to = ""
        self.token = b'{"token": "t-1"}'
        self.asked: list[tuple[str, str, str]] = []  # method, path, Authorization
        self.root = directory
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "")
                outer.asked.append((self.command, self.path, given))
                status, headers, body = outer.answer(self.command, self.path, given)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        if encrypted:
            self._encrypt()
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def _encrypt(self) -> None:
        key, certificate = self.root / "key.pem", self.root / "cert.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-days", "2", "-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)

    def trust(self) -> None:
        directory = self.root / "etc/containers/certs.d" / self.address
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes((self.root / "cert.pem").read_bytes())

    def configure(self, text: str) -> None:
        directory = self.root / "etc/containers"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "registries.conf").write_text(text)

    def answer(self, method: str, path: str, given: str) -> tuple[int, dict[str, str], bytes]:
        basic = "Basic " + base64.b64encode(b"puller:canary-password").decode()
        if path.startswith("/token"):
            asked = parse_qs(urlsplit(path).query)
            granted = asked["scope"] == ["repository:team/web:pull"] and (self.mode == "token" or given == basic)
            return (200, {}, self.token) if granted else (401, {}, b"{}")
        if path != "/v2/team/web/manifests/v1":
            return 404, {}, b"{}"
        own = f"http{'s' if self.mode == 'tls-token' else ''}://{self.address}/token"
        realm = f'realm="{self.realm or own}"'
        bearer = {"WWW-Authenticate": f'Bearer {realm},service="here",scope="repository:team/web:pull"'}
        wanted = {"basic": basic, "token": "Bearer t-1", "user-token": "Bearer t-1", "tls-token": "Bearer t-1"}
        if self.mode in wanted and given != wanted[self.mode]:
            return 401, {"WWW-Authenticate": 'Basic realm="x"'} if self.mode == "basic" else bearer, b"{}"
        if self.leads_to:
            return 307, {"Location": self.leads_to}, b""
        if self.mode.isdigit():
            return int(self.mode), {}, b"{}"
        if self.mode == "nameless":
            return 200, {}, MANIFEST
        return 200, {"Docker-Content-Digest": DIGEST}, MANIFEST

    def resolve(self, auth: RegistryAuth | None = None, timeout_s: float = 5.0) -> str:
        return registry.resolve(f"{self.address}/team/web:v1", auth, timeout_s, self.root)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Registry]:
    """Without TLS, and called insecure by the host's settings."""
    made = Registry(tmp_path)
    made.configure(f'[[registry]]\nlocation = "{made.address}"\ninsecure = true\n')
    yield made
    made.close()


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path, encrypted=True)
    yield made
    made.close()


# ---- asking -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "auth"),
    [("open", None), ("nameless", None), ("basic", AUTH), ("token", None), ("user-token", AUTH)],
)
def test_the_digest_of_a_tag_is_learned_whatever_login_the_registry_wants(
    plain: Registry, mode: str, auth: RegistryAuth | None
) -> None:
    plain.mode = mode
    assert plain.resolve(auth) == DIGEST


def test_nothing_but_the_manifest_is_asked_for_and_no_credentials_before_they_are_wanted(plain: Registry) -> None:
    plain.mode = "basic"
    plain.resolve(AUTH)
    assert [(method, path) for method, path, _ in plain.asked] == [("HEAD", "/v2/team/web/manifests/v1")] * 2
    assert plain.asked[0][2] == ""


@pytest.mark.parametrize(
    ("mode", "auth", "said"),
    [
        ("404", None, "404 (not there)"),
        ("429", None, "429 (too many requests)"),
        ("500", None, "answers 500"),
        ("basic", None, "no credentials"),
        ("basic", RegistryAuth("puller", "wrong"), "401 (login refused)"),
        ("user-token", RegistryAuth("puller", "wrong"), "to a login"),
    ],
)
def test_a_refusal_is_told_without_credentials(
    plain: Registry, mode: str, auth: RegistryAuth | None, said: str
) -> None:
    plain.mode = mode
    with pytest.raises(RegistryTrouble) as caught:
        plain.resolve(auth)
    assert said in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_a_registry_of_a_private_authority_is_believed_when_this_host_trusts_it(encrypted: Registry) -> None:
    with pytest.raises(RegistryTrouble, match="CERTIFICATE_VERIFY_FAILED"):
        encrypted.resolve()
    assert encrypted.asked == []
    encrypted.trust()
    assert encrypted.resolve() == DIGEST


def test_a_registry_with_tls_gets_no_login_sent_to_a_place_without(encrypted: Registry) -> None:
    encrypted.trust()
    encrypted.mode = "user-token"  # its realm is http://
    with pytest.raises(RegistryTrouble, match="without TLS"):
        encrypted.resolve(AUTH)
    assert not any(given for _, _, given in encrypted.asked)
    encrypted.mode = "tls-token"
    assert encrypted.resolve(AUTH) == DIGEST


def test_a_registry_without_tls_is_not_asked_unless_the_host_calls_it_insecure(tmp_path: Path) -> None:
    made = Registry(tmp_path)
    try:
        with pytest.raises(RegistryTrouble):
            made.resolve()
        assert made.asked == []
    finally:
        made.close()


def test_a_registry_that_is_down_or_silent_is_told_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RegistryTrouble, match="no answer in time"):
            registry.resolve(f"{address}/web:v1", None, 0.2)
    with pytest.raises(RegistryTrouble, match="refused"):
        asyncio.run(registry.ask(f"{address}/web:v1", None, 20.0))


def test_a_registry_that_drips_its_answer_keeps_nothing_of_ours() -> None:
    """A byte before each timeout, for ever."""
    over = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            connection, _ = slow.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Y: ")
                while not over.wait(0.02):
                    connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as slow:
        address = f"127.0.0.1:{slow.getsockname()[1]}"
        place = Place(address, "web", "v1", insecure=True)
        slow.settimeout(20)
        peer = threading.Thread(target=drip, daemon=True)
        peer.start()
        client = registry._Client(place, "http", ssl.create_default_context(), time.monotonic() + 0.3)
        with pytest.raises((OSError, http.client.HTTPException)):
            client.digest(None)
        over.set()
        peer.join()


def test_a_login_at_a_place_with_tls_is_sent_with_tls_whoever_asks_for_it(plain: Registry, tmp_path: Path) -> None:
    """The registry itself speaks plain HTTP, and its host calls it insecure; where the login goes is not the registry's to weaken."""
    (tmp_path / "tls").mkdir()
    logins = Registry(tmp_path / "tls", encrypted=True)
    try:
        plain.mode, plain.realm = "user-token", f"https://{logins.address}/token"
        assert plain.resolve(AUTH) == DIGEST
        assert [path.partition("?")[0] for _, path, _ in logins.asked] == ["/token"]
    finally:
        logins.close()


def test_redirects_are_followed_and_take_no_login_to_another_host(plain: Registry, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    far = Registry(tmp_path / "far")
    try:
        plain.mode, plain.leads_to = "basic", f"http://{far.address}/v2/team/web/manifests/v1"
        assert plain.resolve(AUTH) == DIGEST
        assert [given for _, _, given in far.asked] == [""]
        plain.leads_to = "/v2/team/web/manifests/v1"
        with pytest.raises(RegistryTrouble, match="redirects more than 5 times"):
            plain.resolve(AUTH)
    finally:
        far.close()


def test_a_place_that_redirects_lead_to_gets_no_credentials_of_the_registry(plain: Registry, tmp_path: Path) -> None:
    """It may want a login too; then it gets the one that anybody gets."""
    (tmp_path / "far").mkdir()
    far = Registry(tmp_path / "far")
    try:
        plain.leads_to = f"http://{far.address}/v2/team/web/manifests/v1"
        far.mode = "user-token"
        with pytest.raises(RegistryTrouble, match="401"):
            plain.resolve(AUTH)
        far.mode = "token"
        assert plain.resolve(AUTH) == DIGEST
        assert {given for _, _, given in far.asked} == {"", "Bearer t-1"}
    finally:
        far.close()


def test_a_manifest_that_is_cut_off_by_the_deadline_has_no_digest() -> None:
    """Without a length its end is the end of the connection."""
    over = threading.Event()

    def answer_half() -> None:
        with contextlib.suppress(OSError):
            for _ in range(2):  # HEAD, then GET
                connection, _ = slow.accept()
                with connection:
                    head = connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                    if head.startswith(b"GET"):
                        connection.sendall(MANIFEST[:5])
                        over.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as slow:
        place = Place(f"127.0.0.1:{slow.getsockname()[1]}", "web", "v1", insecure=True)
        slow.settimeout(20)
        peer = threading.Thread(target=answer_half, daemon=True)
        peer.start()
        client = registry._Client(place, "http", ssl.create_default_context(), time.monotonic() + 2.0)
        with pytest.raises(OSError, match=r"no answer in time|timed out"):  # by whose clock it is over first
            client.digest(None)
        over.set()
        peer.join()


def test_a_registry_with_tls_is_not_followed_to_a_place_without(encrypted: Registry) -> None:
    encrypted.trust()
    encrypted.leads_to = f"http://{encrypted.address}/v2/team/web/manifests/v1"
    with pytest.raises(RegistryTrouble, match="without TLS"):
        encrypted.resolve()


@pytest.mark.parametrize("token", [b"[]", b"[" * 60_000, b'"t"', b"{}", b"nonsense"])
def test_what_is_no_token_is_told_as_that(plain: Registry, token: bytes) -> None:
    plain.mode, plain.token = "token", token
    with pytest.raises(RegistryTrouble, match=r"^127.0.0.1"):
        plain.resolve()


def test_a_damaged_certificate_of_the_host_is_told(encrypted: Registry) -> None:
    encrypted.trust()
    (encrypted.root / "etc/containers/certs.d" / encrypted.address / "ca.crt").write_text("damaged")
    with pytest.raises(RegistryTrouble, match="certificate"):
        encrypted.resolve()


# ---- this host's settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "settings", "place"),
    [
        ("docker.io/library/nginx:1", [], Place("registry-1.docker.io", "library/nginx", "1")),
        ("reg:5000/a/b:v1", [], Place("reg:5000", "a/b", "v1")),
        ("reg/a:v1", [{"location": "reg", "insecure": True}], Place("reg", "a", "v1", True)),
        ("reg/a:v1", [{"prefix": "reg", "location": "other:5000/sub"}], Place("other:5000", "sub/a", "v1")),
        ("reg/a/b:v1", [{"location": "reg", "insecure": True}, {"location": "reg/a"}], Place("reg", "a/b", "v1")),
        ("regular/a:v1", [{"location": "reg", "insecure": True}], Place("regular", "a", "v1")),
    ],
)
def test_the_host_s_settings_say_where_a_repository_is(reference: str, settings: Any, place: Place) -> None:
    assert place_of(reference, settings) == place


def test_a_registry_that_this_host_blocks_is_not_asked() -> None:
    with pytest.raises(RegistryTrouble, match="blocked"):
        place_of("reg/a:v1", [{"location": "reg", "blocked": True}])


def test_settings_that_cannot_be_read_are_left_out(plain: Registry) -> None:
    directory = plain.root / "etc/containers/registries.conf.d"
    directory.mkdir()
    (directory / "broken.conf").write_text("[[registry")
    (directory / "odd.conf").write_text('registry = "text"')
    assert plain.resolve() == DIGEST


# ---- what a container gets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "pin", "found"),
    [
        ("reg:5000/web:v1", "", "reg:5000/web:v1"),
        ("reg:5000/web:v1", MANIFEST_PIN + DIGEST, f"reg:5000/web@{DIGEST}"),
        ("reg:5000/web", MANIFEST_PIN + DIGEST, f"reg:5000/web@{DIGEST}"),
        ("web", MANIFEST_PIN + DIGEST, f"web@{DIGEST}"),
        ("web:v1", IMAGE_PIN + DIGEST, DIGEST),
    ],
)
def test_by_what_the_engine_knows_pinned_bytes(reference: str, pin: str, found: str) -> None:
    assert pinned_reference(reference, pin) == found


APP = digest_of(b"app:1")  # the fake's id and digest of its image app:1
OTHER = digest_of(b"another")


@pytest.mark.parametrize(
    ("policy", "present", "pin", "pulls"),
    [
        ("IfNotPresent", False, MANIFEST_PIN + APP, 1),
        ("IfNotPresent", True, MANIFEST_PIN + APP, 0),
        ("Always", True, MANIFEST_PIN + APP, 1),
        ("Never", True, MANIFEST_PIN + APP, 0),
        ("IfNotPresent", True, IMAGE_PIN + APP, 0),
        ("IfNotPresent", False, IMAGE_PIN + APP, 1),
    ],
)
def test_the_pull_policy_stays_what_it_is_for_pinned_images(policy: str, present: bool, pin: str, pulls: int) -> None:
    assert simulate(_found(policy, present, pin)) == (APP, pulls)


@pytest.mark.parametrize(
    ("policy", "present", "pin", "reason", "said"),
    [
        ("IfNotPresent", True, IMAGE_PIN + OTHER, "ErrImagePull", "another image in its registry"),
        ("Never", True, IMAGE_PIN + OTHER, "ErrImageNeverPull", "another image under the name app:1"),
        ("Never", False, IMAGE_PIN + OTHER, "ErrImageNeverPull", "sshoal image push app:1"),
        ("IfNotPresent", True, MANIFEST_PIN + OTHER, "ErrImagePull", "manifest unknown"),
    ],
)
def test_other_bytes_than_the_pinned_ones_are_never_taken(
    policy: str, present: bool, pin: str, reason: str, said: str
) -> None:
    with pytest.raises(PullTrouble) as caught:
        simulate(_found(policy, present, pin))
    assert caught.value.reason == reason
    assert said in str(caught.value)


async def _found(policy: str, present: bool, pin: str) -> tuple[str, int]:
    podman = FakePodman(
        WorldClock(), random.Random(1), Faults(), {"app:1": Behaviour()}, present={"app:1"} if present else set()
    )

    async def unguarded(call: Any) -> Any:
        return await call

    image = await Images(podman, unguarded).find("app:1", policy, pin=pin, known_id="", pulling=lambda: ())
    return image.id, podman.calls["pull"]
