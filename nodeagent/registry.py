"""What a tag of an image registry stands for at this moment: the digest of its manifest. In: a reference, credentials, this host's
registries.conf and certs.d. Out: "sha256:…", or a RegistryTrouble. Does network I/O, blocking: call it in a thread.

Nothing is fetched but the manifest's head (Podman pulls; by digest, later). The protocol is OCI's distribution spec 1.1 with Docker's token
authentication. Of the host's registries.conf it honours what Podman does too: `location`, `insecure` and `blocked` of the registry with the
longest matching prefix. Mirrors are Podman's: content that is asked for by digest is the same in each of them.
"""

import asyncio
import base64
import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional
from urllib.parse import SplitResult, quote, urlencode, urljoin, urlsplit

import tomli

from nodeagent.imagefile import digest_of
from nodeagent.runtime import RegistryAuth

DOCKER_HUB, DOCKER_HUB_HOST = "docker.io", "registry-1.docker.io"
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
TOKEN_BYTES_MAX = 64 * 1024
CONNECT_S = 4.0
REDIRECTS_MAX = 5
_ACCEPTED = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class RegistryTrouble(Exception):
    """Why a tag could not be resolved. Holds no credentials."""


@dataclass(frozen=True)
class Place:
    """Where a repository is asked for. `host` may carry a port."""

    host: str
    repository: str
    tag: str
    insecure: bool = False


def resolve(reference: str, auth: Optional[RegistryAuth], timeout_s: float, root: Path = Path("/")) -> str:
    """The digest that a reference with a tag stands for.

    Args:
        timeout_s: for all requests together.
        root: where etc/containers is.
    Raises: RegistryTrouble.
    """
    place = place_of(reference, settings_of(root))
    until_s = time.monotonic() + timeout_s
    trouble = ""
    for scheme in ("https", "http") if place.insecure else ("https",):
        try:
            return _Client(place, scheme, _context(place, root), until_s).digest(auth)
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            trouble = str(error) or type(error).__name__
    if time.monotonic() >= until_s:
        trouble = "no answer in time"
    raise RegistryTrouble(f"{place.host}: {trouble}")


async def ask(reference: str, auth: Optional[RegistryAuth], timeout_s: float) -> str:
    """As `resolve`, in a thread of its own, which is left behind when it does not come back in time (a resolver that hangs)."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str] = loop.create_future()

    def settle(digest: str, trouble: Optional[Exception]) -> None:
        if done.done():
            return
        if trouble is None:
            done.set_result(digest)
        else:
            done.set_exception(trouble)

    def work() -> None:
        digest, trouble = "", None
        try:
            digest = resolve(reference, auth, timeout_s)
        except Exception as error:
            trouble = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, digest, trouble)

    threading.Thread(target=work, name="registry", daemon=True).start()
    try:
        return await asyncio.wait_for(done, timeout_s + 1.0)
    except asyncio.TimeoutError:
        raise RegistryTrouble("no answer in time") from None


def _context(place: Place, root: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if place.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for directory in (root / "etc/containers/certs.d" / place.host, root / "etc/docker/certs.d" / place.host):
        for certificate in sorted(directory.glob("*.crt")) if directory.is_dir() else ():
            context.load_verify_locations(certificate)
    return context


@dataclass(frozen=True)
class _Answer:
    url: str  # where redirects have led
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class _Client:
    """Requests to one registry, and to where it sends us. Plain HTTP goes only to a registry that this host calls insecure."""

    def __init__(self, place: Place, scheme: str, context: ssl.SSLContext, until_s: float) -> None:
        self._place, self._scheme, self._context, self._until_s = place, scheme, context, until_s

    def digest(self, auth: Optional[RegistryAuth]) -> str:
        place = self._place
        url = f"{self._scheme}://{place.host}/v2/{quote(place.repository)}/manifests/{quote(place.tag)}"
        headers = {"Accept": _ACCEPTED}
        answer = self._request("HEAD", url, headers)
        if answer.status == 401:
            # Credentials are for the registry. A place that it leads to is asked as anybody would.
            known = auth if urlsplit(answer.url)[:2] == urlsplit(url)[:2] else None
            url, challenge = answer.url, answer.headers.get("WWW-Authenticate", "")
            headers["Authorization"] = self._authorization(challenge, known)
            answer = self._request("HEAD", url, headers)
        found = answer.headers.get("Docker-Content-Digest", "")
        if answer.status == 200 and not _DIGEST.match(found):
            answer = self._request("GET", url, headers)
            found = digest_of(answer.body)
        if answer.status != 200:
            why = f"{answer.status} {_meaning(answer.status)}"
            raise RegistryTrouble(f"{place.host} answers {why} for {place.repository}:{place.tag}")
        return found

    def _authorization(self, challenge: str, auth: Optional[RegistryAuth]) -> str:
        kind, _, rest = challenge.partition(" ")
        basic = _basic(auth)
        if kind.lower() == "basic" and basic:
            return basic
        parameters = dict(_PARAMETER.findall(rest))
        realm = urlsplit(parameters.get("realm", ""))
        if kind.lower() != "bearer" or not realm.hostname:
            raise RegistryTrouble(f"{self._place.host} wants a login, and there are no credentials for it")
        if realm.scheme != "https" and self._scheme == "https":
            raise RegistryTrouble(f"{self._place.host} sends logins to a place without TLS: {realm.hostname}")
        scope = parameters.get("scope") or f"repository:{self._place.repository}:pull"
        query = urlencode({"service": parameters.get("service", ""), "scope": scope})
        url = realm._replace(query=f"{realm.query}&{query}" if realm.query else query).geturl()
        headers = {"Authorization": basic} if basic else {}
        answer = self._request("GET", url, headers, most_bytes=TOKEN_BYTES_MAX)
        if answer.status != 200:
            raise RegistryTrouble(f"{realm.hostname} answers {answer.status} {_meaning(answer.status)} to a login")
        document = json.loads(answer.body)
        token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
        if not isinstance(token, str) or not token.isprintable():
            raise RegistryTrouble(f"{realm.hostname} gives no token")
        return f"Bearer {token}"

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], *, most_bytes: int = MANIFEST_BYTES_MAX
    ) -> _Answer:
        """Follows redirects, which some registries give for every manifest. A login goes to no other host than it was meant for."""
        for _ in range(REDIRECTS_MAX + 1):
            answer = self._ask(method, url, headers, most_bytes)
            if answer.status not in (301, 302, 303, 307, 308) or not answer.headers.get("Location"):
                return answer
            former, url = urlsplit(url), urljoin(url, answer.headers["Location"])
            if urlsplit(url)[:2] != former[:2]:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
        raise RegistryTrouble(f"{self._place.host} redirects more than {REDIRECTS_MAX} times")

    def _ask(self, method: str, url: str, headers: Mapping[str, str], most_bytes: int) -> _Answer:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise RegistryTrouble(f"{self._place.host} leads to what is no address on the web")
        if parts.scheme == "http" and not self._place.insecure:
            raise RegistryTrouble(f"{self._place.host} leads to a place without TLS: {parts.hostname}")
        with self._connected(parts) as connection:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, path, headers=dict(headers))
            answer = connection.getresponse()
            body = answer.read(most_bytes + 1)
            if len(body) > most_bytes:
                raise RegistryTrouble(f"{parts.netloc} answers with more than {most_bytes >> 10} KiB")
            if time.monotonic() >= self._until_s:
                raise TimeoutError("no answer in time")  # cut off, this may look like the end of it
            return _Answer(url, answer.status, answer.headers, body)

    @contextlib.contextmanager
    def _connected(self, to: SplitResult) -> Iterator[http.client.HTTPConnection]:
        """A connection that is cut when the time is over, however slowly the other side drips."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0 or to.hostname is None:
            raise TimeoutError("no answer in time")
        connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(to.hostname, to.port, context=self._context)
            if to.scheme == "https"
            else http.client.HTTPConnection(to.hostname, to.port)
        )
        address, timeout_s = (connection.host, connection.port), min(left_s, CONNECT_S)
        with socket.create_connection(address, timeout_s) as plain, plain.dup() as same:
            over = threading.Timer(left_s, _cut, (same,))
            over.daemon = True
            over.start()
            try:
                secure = to.scheme == "https"
                connection.sock = self._context.wrap_socket(plain, server_hostname=to.hostname) if secure else plain
                yield connection
            finally:
                over.cancel()
                over.join()  # `same` is closed next, and its number may be another's then
                connection.close()


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _basic(auth: Optional[RegistryAuth]) -> str:
    if auth is None:
        return ""
    return "Basic " + base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()


def _meaning(status: int) -> str:
    return {401: "(login refused)", 403: "(forbidden)", 404: "(not there)", 429: "(too many requests)"}.get(status, "")


# ---- names and this host's settings -------------------------------------------------------------------------------------


def place_of(reference: str, settings: Iterable[Mapping[str, Any]] = ()) -> Place:
    """Raises RegistryTrouble for a registry that this host blocks. The reference is in its full form: registry/repository:tag."""
    name, _, tag = reference.rpartition(":")
    registry, _, repository = name.partition("/")
    insecure = False
    for entry in sorted(settings, key=lambda one: len(_prefix(one)), reverse=True):
        prefix = _prefix(entry)
        if prefix and (name == prefix or name.startswith((f"{prefix}/", f"{prefix}:"))):
            if entry.get("blocked") is True:
                raise RegistryTrouble(f"{registry} is blocked in this host's registries.conf")
            insecure = entry.get("insecure") is True
            name = str(entry.get("location") or prefix) + name[len(prefix) :]
            registry, _, repository = name.partition("/")
            break
    return Place(DOCKER_HUB_HOST if registry == DOCKER_HUB else registry, repository, tag, insecure)


def settings_of(root: Path) -> list[Mapping[str, Any]]:
    """The [[registry]] tables of this host; those that cannot be read are left out: Podman will tell of them when it pulls."""
    directory = root / "etc/containers"
    found: list[Mapping[str, Any]] = []
    for path in (directory / "registries.conf", *sorted((directory / "registries.conf.d").glob("*.conf"))):
        try:
            tables = tomli.loads(path.read_text(encoding="utf-8")).get("registry", [])
        except (OSError, ValueError):
            continue
        found += [table for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []
    return found


def _prefix(entry: Mapping[str, Any]) -> str:
    return str(entry.get("prefix") or entry.get("location") or "")
