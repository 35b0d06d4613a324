"""Images on a real Podman: what registries do to pulls, and images that come layer by layer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from lab.layered import configuration, digest, layer
from nodeagent import podman_runtime
from nodeagent.imagefile import LayeredImage, layered
from nodeagent.protocol import ImageLayer, ImageLoad
from nodeagent.runtime import RegistryAuth, RuntimeFault
from tests.contract import registry
from tests.contract.engines import RealEngine
from tests.contract.private_podman import PrivatePodman

pytestmark = pytest.mark.podman

AUTH = RegistryAuth(registry.USER, registry.PASSWORD)


def run(podman: PrivatePodman, scenario: Callable[[RealEngine], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        engine = RealEngine(podman)
        try:
            return await scenario(engine)
        finally:
            engine.close()

    return asyncio.run(main())


# ---- pulls ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def registry_address(private_podman: PrivatePodman) -> Iterator[str]:
    """Of a registry that listens where the private Podman can reach it."""
    command = [*private_podman.enter(), sys.executable, registry.__file__]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = f"127.0.0.1:{int(server.stdout.readline())}"
    server.stdout.close()
    settings = private_podman.directory / "registries.conf"
    settings.write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
    private_podman.stop_service()
    private_podman.start_service()
    yield address
    server.kill()
    server.wait(10)
    settings.unlink()


def test_a_pull_with_credentials_brings_the_image_and_its_digest(
    private_podman: PrivatePodman, registry_address: str
) -> None:
    async def scenario(engine: RealEngine) -> None:
        auth = RegistryAuth(registry.USER, registry.PASSWORD)
        image_id = await engine.runtime.pull(f"{registry_address}/hello:1", auth)
        image = await engine.runtime.image(f"{registry_address}/hello:1")
        assert image is not None
        assert (image.id, image.user) == (image_id, "1000")
        assert len(image.digests) == 1
        for pinned in (image.digests[0], image_id):  # by what a pinned image is looked up
            found = await engine.runtime.image(pinned)
            assert found is not None
            assert found.id == image_id
        assert await engine.runtime.pull(image.digests[0], auth) == image_id

    run(private_podman, scenario)


@pytest.mark.parametrize("auth", [None, RegistryAuth("reader", "wrong")], ids=["none", "wrong"])
def test_a_pull_without_the_right_password_fails_in_the_registrys_words(
    private_podman: PrivatePodman, registry_address: str, auth: RegistryAuth | None
) -> None:
    async def scenario(engine: RealEngine) -> None:
        with pytest.raises(RuntimeFault, match=r"(?i)unauthorized|authentication required") as fault:
            await engine.runtime.pull(f"{registry_address}/hello:1", auth)
        assert fault.value.reason == "pull-failed"
        assert "wrong" not in str(fault.value)

    run(private_podman, scenario)


def test_a_tag_that_does_not_exist_is_said_to_be_unknown(private_podman: PrivatePodman, registry_address: str) -> None:
    async def scenario(engine: RealEngine) -> None:
        with pytest.raises(RuntimeFault, match="hello:2") as fault:
            await engine.runtime.pull(f"{registry_address}/hello:2", RegistryAuth(registry.USER, registry.PASSWORD))
        assert fault.value.reason == "pull-failed"

    run(private_podman, scenario)


def test_a_registry_that_fails_is_told_in_its_words(private_podman: PrivatePodman, registry_address: str) -> None:
    async def scenario(engine: RealEngine) -> None:
        with pytest.raises(RuntimeFault, match="500") as fault:
            await engine.runtime.pull(f"{registry_address}/broken:1", AUTH)
        assert fault.value.reason == "pull-failed"

    run(private_podman, scenario)


def test_a_registry_that_stalls_in_a_layer_is_given_up_and_its_pull_ends(
    private_podman: PrivatePodman, registry_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(podman_runtime, "PULL_SILENCE_S", 2.5)

    async def scenario(engine: RealEngine) -> None:
        with pytest.raises(RuntimeFault, match="no progress") as fault:
            await engine.runtime.pull(f"{registry_address}/stalls:1", AUTH)
        assert fault.value.reason == "pull-failed"
        assert await engine.runtime.pull(f"{registry_address}/after:1", AUTH)  # nothing of it is in the way

    run(private_podman, scenario)


def test_a_slow_registry_is_waited_for_as_long_as_something_comes(
    private_podman: PrivatePodman, registry_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layer takes twice the time that silence may take."""
    monkeypatch.setattr(podman_runtime, "PULL_SILENCE_S", 2.5)

    async def scenario(engine: RealEngine) -> None:
        assert await engine.runtime.pull(f"{registry_address}/slow:1", AUTH)

    run(private_podman, scenario)


# ---- layers -----------------------------------------------------------------------------------------------------------------


A, B, C = layer("a", 300_000, 11), layer("b", 200_000, 12), layer("c", 100_000, 13)


def image_of(tag: str, *layers: bytes) -> LayeredImage:
    described = tuple(ImageLayer(digest(one), len(one)) for one in layers)
    return layered(ImageLoad(configuration(layers).decode(), (f"localhost/layers:{tag}",), described))


async def load(engine: RealEngine, image: LayeredImage, enclosed: Sequence[bytes], sent: Sequence[bytes] = ()) -> None:
    """`sent` is what lies under the digests of `enclosed`, when it is not what it should be."""
    blobs = {digest(one): piece for one, piece in zip(enclosed, sent or enclosed, strict=True)}
    await engine.runtime.load_image(image.archive(list(blobs), lambda name: [blobs[name]]))


def test_layers_that_podman_has_need_not_be_in_the_archive(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        runtime = engine.runtime
        await load(engine, image_of("one", A, B), [A, B])
        assert {digest(A), digest(B)} <= await runtime.layers()
        await load(engine, image_of("two", A, C), [C])
        await load(engine, image_of("turned", C, B), [])  # on another base, in another order
        for tag, layers in (("one", (A, B)), ("two", (A, C)), ("turned", (C, B))):
            found = await runtime.image(f"localhost/layers:{tag}")
            assert found is not None
            assert found.id == image_of(tag, *layers).id
            # Podman reads all its layers back, and they are what was sent
            private_podman.cli("save", "--quiet", "--output", "/dev/null", "--format", "docker-archive", found.id)

    run(private_podman, scenario)


def test_a_layer_that_is_nowhere_is_named_and_nothing_is_loaded(private_podman: PrivatePodman) -> None:
    missing = layer("missing", 1000, 14)

    async def scenario(engine: RealEngine) -> None:
        image = image_of("missing", missing)
        with pytest.raises(RuntimeFault, match=digest(missing)[7:]):
            await load(engine, image, [])
        assert await engine.runtime.image(image.id) is None

    run(private_podman, scenario)


def test_podman_too_refuses_a_layer_with_one_bit_flipped(private_podman: PrivatePodman) -> None:
    good = layer("good", 100_000, 15)
    flipped = bytes([*good[:50_000], good[50_000] ^ 1, *good[50_001:]])

    async def scenario(engine: RealEngine) -> None:
        image = image_of("flipped", good)
        with pytest.raises(RuntimeFault, match=r"(?i)digest did not match"):
            await load(engine, image, [good], [flipped])
        assert await engine.runtime.image(image.id) is None

    run(private_podman, scenario)


def test_an_image_gets_further_names_and_a_name_moves_on(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        runtime = engine.runtime
        first, second = image_of("named", A), image_of("named", B)
        await load(engine, first, [A])
        await runtime.tag(first.id, "localhost:5000/other/name:v2")
        await load(engine, second, [B])
        named = await runtime.image("localhost/layers:named")
        other = await runtime.image("localhost:5000/other/name:v2")
        assert named is not None
        assert other is not None
        assert (named.id, other.id) == (second.id, first.id)

    run(private_podman, scenario)
