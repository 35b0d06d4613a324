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
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote, urlencode, urlsplit

import tomli

from nodeagent.imagefile import digest_of
from nodeagent.runtime import RegistryAuth

DOCKER_HUB, DOCKER_HUB_HOST = "docker.io", "registry-1.docker.io"
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
TOKEN_BYTES_MAX = 64 * 1024
CONNECT_S = 4.0
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
    for context in (_context(place, root), None) if place.insecure else (_context(place, root),):
        try:
            return _Client(place, context, until_s).digest(auth)
        except (OSError, http.client.HTTPException, ValueError) as error:
            trouble = str(error) or type(error).__name__
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


class _Client:
    """Requests to one registry. `context` None: plain HTTP, which only a registry gets that this host calls insecure."""

    def __init__(self, place: Place, context: Optional[ssl.SSLContext], until_s: float) -> None:
        self._place, self._context, self._until_s = place, context, until_s

    def digest(self, auth: Optional[RegistryAuth]) -> str:
        place = self._place
        path = f"/v2/{quote(place.repository)}/manifests/{quote(place.tag)}"
        headers = {"Accept": _ACCEPTED}
        status, answered, _ = self._request("HEAD", path, headers)
        if status == 401:
            headers["Authorization"] = self._authorization(answered.get("WWW-Authenticate", ""), auth)
            status, answered, _ = self._request("HEAD", path, headers)
        found = answered.get("Docker-Content-Digest", "")
        if status == 200 and not _DIGEST.match(found):
            status, answered, body = self._request("GET", path, headers)
            found = digest_of(body)
        if status != 200:
            raise RegistryTrouble(
                f"{place.host} answers {status} {_meaning(status)} for {place.repository}:{place.tag}"
            )
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
        if realm.scheme != "https" and self._context is not None:
            raise RegistryTrouble(f"{self._place.host} sends logins to a place without TLS: {realm.hostname}")
        scope = parameters.get("scope") or f"repository:{self._place.repository}:pull"
        query = urlencode({"service": parameters.get("service", ""), "scope": scope})
        headers = {"Authorization": basic} if basic else {}
        path = f"{realm.path or '/'}?{realm.query + '&' if realm.query else ''}{query}"
        status, _, body = self._request("GET", path, headers, host=realm.netloc)
        if status != 200:
            raise RegistryTrouble(f"{realm.hostname} answers {status} {_meaning(status)} to a login")
        document = json.loads(body)
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token.isprintable():
            raise RegistryTrouble(f"{realm.hostname} gives no token")
        return f"Bearer {token}"

    def _request(
        self, method: str, path: str, headers: Mapping[str, str], host: str = ""
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no answer in time")
        address, timeout_s = host or self._place.host, min(left_s, CONNECT_S)
        if self._context is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                address, timeout=timeout_s, context=self._context
            )
        else:
            connection = http.client.HTTPConnection(address, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request(method, path, headers=dict(headers))
            answer = connection.getresponse()
            limit = TOKEN_BYTES_MAX if host else MANIFEST_BYTES_MAX
            body = answer.read(limit + 1)
            if len(body) > limit:
                raise RegistryTrouble(f"{address} answers with more than {limit >> 10} KiB")
            return answer.status, answer.headers, body


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
