"""Images on this host: which one a container gets, and pulling it. In: reference, policy, credentials. Out: ImageInfo
or PullTrouble.

Pulls are apart from starts, at most PULLS_MAX at once; two containers that want the same image share one pull.
With the policy Always an image is asked for once per pod and container, not at each restart: a running pod does
not depend on its registry.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Callable, Optional, TypeVar

from nodeagent.protocol import IMAGE_PIN, MANIFEST_PIN, SecretValue
from nodeagent.runtime import ImageInfo, RegistryAuth, Runtime, RuntimeFault

PULLS_MAX = 2
DOCKER_HUB = "docker.io"

T = TypeVar("T")
Guard = Callable[[Awaitable[Any]], Awaitable[Any]]


class PullTrouble(Exception):
    """No image for a container; `reason` is Kubernetes' word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Images:
    """Create it within a running event loop. `guard` wraps each call of the engine (supervisor.Health)."""

    def __init__(
        self, runtime: Runtime, guard: Guard, tell_damage: Callable[[Mapping[str, str]], None] = lambda _: None
    ) -> None:
        """`tell_damage`: called with the damaged images that could not be replaced yet, and what is wrong with each."""
        self._runtime = runtime
        self._guard = guard
        self._tell_damage = tell_damage
        self._damaged: dict[str, str] = {}
        self._removed: set[str] = set()  # damaged ones of which nothing is left: one of that name is another
        self._slots = asyncio.Semaphore(PULLS_MAX)
        self._pulls: dict[tuple[str, tuple[RegistryAuth, ...]], asyncio.Task[str]] = {}

    async def find(
        self,
        reference: str,
        policy: str,
        *,
        pin: str = "",
        known_id: str,
        pulling: Callable[[], tuple[RegistryAuth, ...]],
    ) -> ImageInfo:
        """The image for a container, pulled when the policy says so.

        Args:
            pin: which bytes the reference stands for (protocol.Container.pin); any others are not taken.
            known_id: the image an earlier attempt of this container ran; it is used again while it is on the host.
            pulling: called when a pull begins, gives the credentials for it, to be tried in their order.
        Raises: PullTrouble, RuntimeFault when the engine itself fails, and what `pulling` raises.
        """
        if known_id:
            image = await self._sound(known_id, reference)
            if image is not None:
                return image
        wanted = pinned_reference(reference, pin)
        if policy != "Always" or wanted in self._damaged:
            image = await self._sound(wanted, wanted)
            if image is not None:
                return image
        if policy == "Never":
            raise PullTrouble("ErrImageNeverPull", await self._never(reference, pin))
        by_id = pin.startswith(IMAGE_PIN)
        image_id = await self._pull(reference if by_id else wanted, pulling())
        image = await self._guard(self._runtime.image(image_id or wanted))
        if image is None:
            raise PullTrouble("ErrImagePull", f"image {reference} was pulled but is not on this host")
        if by_id and _named(image).id != wanted:
            raise PullTrouble(
                "ErrImagePull",
                f"{reference} is another image in its registry than the one that this revision began with ({wanted[:19]}):"
                f" `sshoal image push` brings that one here, `sshoal rollout restart` begins a revision with what the registry has now",
            )
        self._mended(wanted)
        return _named(image)

    async def discard(self, reference: str, why: str) -> None:
        """Removes what is left of an image whose layers are lost, so that a pull or a push brings it whole. Containers are not touched.

        Raises: PullTrouble when it cannot be removed.
        """
        self._damaged[reference] = why
        self._tell_damage(self._damaged)
        self._removed.discard(reference)
        try:
            await self._guard(self._runtime.remove_image(reference))
        except RuntimeFault as fault:
            raise PullTrouble(
                "ErrImageDamaged",
                f"image {reference} has lost layers in Podman's storage ({why}) and cannot be removed ({fault}):"
                " stop what is made of it, then `podman rmi` it, or mend the storage: `podman system check --repair`",
            ) from None
        self._removed.add(reference)

    async def look_at_damaged(self) -> None:
        """One that was pulled or pushed anew is whole, also when no pod here wants it any more.

        Raises: RuntimeFault when the engine does not answer.
        """
        for reference in list(self._damaged):
            try:
                image = await self._guard(self._runtime.image(reference))
            except RuntimeFault as fault:
                if fault.reason in ("timeout", "unavailable"):
                    raise
                continue
            if image is None:
                self._removed.add(reference)
            elif reference in self._removed:
                self._mended(reference)

    async def _sound(self, name: str, reference: str) -> Optional[ImageInfo]:
        """The image if it is here and whole; what is left of a damaged one is removed."""
        try:
            image = await self._guard(self._runtime.image(name))
        except RuntimeFault as fault:
            if fault.reason != "storage-corrupt":
                raise
            await self.discard(reference, str(fault))
            return None
        if image is not None:
            self._mended(reference)
        return image if image is None else _named(image)

    def _mended(self, reference: str) -> None:
        if self._damaged.pop(reference, None) is not None:
            self._tell_damage(self._damaged)

    async def _never(self, reference: str, pin: str) -> str:
        other = await self._guard(self._runtime.image(reference)) if pin else None
        what = f"image {reference} is not on this host"
        if other is not None:
            what = f"this host has another image under the name {reference} than this revision began with"
        return f"{what}, and its pull policy is Never: `sshoal image push {reference}` brings it"

    async def _pull(self, reference: str, auths: tuple[RegistryAuth, ...]) -> str:
        key = (reference, auths)
        task = self._pulls.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._pull_alone(reference, auths))
            self._pulls[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)  # one container that goes does not stop the pull of the others

    async def _pull_alone(self, reference: str, auths: tuple[RegistryAuth, ...]) -> str:
        async with self._slots:
            trouble: Optional[RuntimeFault] = None
            for auth in auths or (None,):
                try:
                    image_id: str = await self._guard(self._runtime.pull(reference, auth))
                    return image_id
                except RuntimeFault as fault:
                    trouble = fault
                    if fault.reason != "pull-failed":
                        raise
            raise PullTrouble("ErrImagePull", str(trouble))

    def _forget(self, key: tuple[str, tuple[RegistryAuth, ...]], task: "asyncio.Task[str]") -> None:
        self._pulls.pop(key, None)
        if not task.cancelled():
            task.exception()  # it was told to those who waited, if any still did


async def resolved(runtime: Runtime, reference: str, auths: tuple[RegistryAuth, ...]) -> str:
    """What a tag stands for in its registry, by the first credentials that do. Raises RuntimeFault with what the last ones met."""
    trouble = RuntimeFault("pull-failed", f"{reference}: no answer")
    for auth in auths or (None,):
        try:
            return await runtime.resolve(reference, auth)
        except RuntimeFault as fault:
            trouble = fault
    raise trouble


def pinned_reference(reference: str, pin: str) -> str:
    """By what the engine knows the pinned bytes: repository@digest, an image's id, or, without a pin, the reference itself.

    repository:tag → repository@sha256:…
    """
    if pin.startswith(IMAGE_PIN):
        return pin[len(IMAGE_PIN) :]
    if not pin.startswith(MANIFEST_PIN):
        return reference
    last = reference.rfind(":")
    repository = reference[:last] if last > reference.rfind("/") else reference
    return f"{repository}@{pin[len(MANIFEST_PIN) :]}"


def credentials(reference: str, secrets: Iterable[SecretValue]) -> tuple[RegistryAuth, ...]:
    """What pull secrets hold for the registry of an image, in their order; entries that can't be read are left out."""
    registry = registry_of(reference)
    found = []
    for secret in secrets:
        for host, entry in _auths(secret).items():
            if _same_registry(host, registry) and isinstance(entry, dict):
                auth = _auth(entry)
                if auth is not None:
                    found.append(auth)
    return tuple(found)


def registry_of(reference: str) -> str:
    """The registry's host of an image reference, as Docker reads it: the first part when it looks like a host."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first
    return DOCKER_HUB


def _auths(secret: SecretValue) -> dict[str, Any]:
    for key in (".dockerconfigjson", ".dockercfg"):
        if key not in secret.data:
            continue
        try:
            document = json.loads(base64.b64decode(secret.data[key]))
        except (ValueError, binascii.Error, RecursionError):
            return {}
        auths = document.get("auths", document) if isinstance(document, dict) else {}
        return auths if isinstance(auths, dict) else {}
    return {}


def _auth(entry: dict[str, Any]) -> Optional[RegistryAuth]:
    username, password = entry.get("username"), entry.get("password")
    if isinstance(username, str) and isinstance(password, str):
        return RegistryAuth(username, password)
    try:
        joined = base64.b64decode(str(entry.get("auth", ""))).decode("utf-8")
    except (ValueError, binascii.Error):
        return None
    username, colon, password = joined.partition(":")
    return RegistryAuth(username, password) if colon else None


def _same_registry(host: str, registry: str) -> bool:
    name = host.split("://")[-1].split("/")[0]
    return name == registry or (registry == DOCKER_HUB and name in ("index.docker.io", "registry-1.docker.io"))


def _named(image: Any) -> ImageInfo:
    assert isinstance(image, ImageInfo)
    return image
