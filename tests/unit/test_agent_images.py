"""Images as the agent takes them in, through the whole server: what it asks for, what it keeps of a cut upload, what it never loads."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.layered import configuration, layer
from nodeagent import imageload, layers, protocol
from nodeagent.imagefile import digest_of
from nodeagent.layers import Incoming, LayerStore
from nodeagent.protocol import STREAM_WINDOW_BYTES, ImageLayer, ImageLoad
from nodeagent.runtime import ImageInfo, RuntimeFault
from tests.agent_peer import Desk, Peer, connected, serving, talking, until

A, B, C = layer("a", 700_000, 1), layer("b", 300_000, 2), layer("c", 10_000, 3)
TAG = "localhost/web:v1"


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 50))


def request(*contents: bytes, names: Sequence[str] = (TAG,)) -> ImageLoad:
    described = tuple(ImageLayer(digest_of(one), len(one)) for one in contents)
    return ImageLoad(configuration(contents).decode(), tuple(names), described)


def image_id(*contents: bytes) -> str:
    return digest_of(configuration(contents))


class Engine:
    """Podman as far as images go, as it was measured: layers that it has need no blob, others do, and each blob is verified."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.images: dict[str, list[str]] = {}
        self.archives: list[dict[str, bytes]] = []
        self.says_it_has: set[str] = set()
        self.fault: RuntimeFault | None = None

    async def layers(self) -> frozenset[str]:
        return frozenset(self.held) | self.says_it_has

    async def image(self, reference: str) -> ImageInfo | None:
        return ImageInfo(reference, tuple(self.images[reference])) if reference in self.images else None

    async def tag(self, reference: str, name: str) -> None:
        self.images[reference].append(name)

    async def load_image(self, archive: Iterable[bytes]) -> None:
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        self.archives.append(files)
        if self.fault:
            raise self.fault

        def blob(digest: str) -> bytes:
            content = files.get(f"blobs/sha256/{digest[7:]}", self.held.get(digest, b""))
            if digest_of(content) != digest:
                raise RuntimeFault("failed", f"reading blob {digest}: no such file or directory")
            return content

        (entry,) = json.loads(files["index.json"])["manifests"]
        manifest = json.loads(blob(entry["digest"]))
        for one in manifest["layers"]:
            assert len(blob(one["digest"])) == one["size"]
            self.held[one["digest"]] = blob(one["digest"])
        self.images[digest_of(blob(manifest["config"]["digest"]))] = [
            entry["annotations"]["org.opencontainers.image.ref.name"]
        ]

    @property
    def last_blobs(self) -> set[str]:
        """Of layers, in the last archive."""
        return {name for name, content in self.archives[-1].items() if name.startswith("blobs") and content[:1] != b"{"}


def blobs(*contents: bytes) -> set[str]:
    return {f"blobs/sha256/{digest_of(one)[7:]}" for one in contents}


class Sender:
    """The controller's end: gives what it is asked for, as far as its credit goes."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.credit = STREAM_WINDOW_BYTES

    async def begin(self, asked: ImageLoad) -> None:
        assert await self.peer.call(protocol.IMAGE_LOAD, asked) == {"id": 1, "ok": {}}

    async def wants(self) -> dict[str, int]:
        """Digest → offset of the layers that the agent asks for next."""
        line = b""
        while not line.endswith(b"\n"):
            kind, message = await self.peer.next()
            if kind == protocol.STDOUT:
                line += message
                self.peer.send({"credit": len(message)})
            else:
                self.credit += message["credit"]
        return {item["digest"]: item["offset"] for item in json.loads(line)["layers"]}

    async def send(self, content: bytes) -> None:
        for start in range(0, len(content), 32768):
            piece = content[start : start + 32768]
            while self.credit < len(piece):
                self.credit += (await self.peer.message())["credit"]
            self.credit -= len(piece)
            self.peer.send_data(piece)
        await self.peer.writer.drain()

    async def exit(self) -> Any:
        return (await self.peer.to_exit())[2]

    async def bring(self, *contents: bytes, **more: Any) -> Any:
        """A whole image, with one round of wishes → the exit."""
        await self.begin(request(*contents, **more))
        by_digest = {digest_of(one): one for one in contents}
        for digest, offset in (await self.wants()).items():
            await self.send(by_digest[digest][offset:])
        return await self.exit()


class Host:
    """An agent's server over a directory, and connections to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = Engine()
        self.desk = Desk(self.engine)
        self.uploads = folder / "up"

    def talking(self) -> Any:
        return talking(self.desk, self.folder, uploads=str(self.uploads))

    def files(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self.uploads.iterdir()} if self.uploads.exists() else {}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# ---- what is asked for --------------------------------------------------------------------------------------------------


def test_an_image_that_is_new_comes_whole_and_leaves_nothing_beside_the_engine(host: Host) -> None:
    async def work() -> None:
        async with host.talking() as peer:
            assert await Sender(peer).bring(A, B) == {"image": image_id(A, B)}
        assert host.engine.images == {image_id(A, B): [TAG]}
        assert host.engine.last_blobs == blobs(A, B)
        assert host.desk.images_seen == 1  # pods that wait for it go on
        assert host.files() == {}

    run(work())


def test_of_a_second_image_only_the_layer_that_changed_is_asked_for(host: Host) -> None:
    async def work() -> None:
        async with host.talking() as peer:
            await Sender(peer).bring(A, B)
        async with host.talking() as peer:
            sender = Sender(peer)
            await sender.begin(request(A, C))
            assert await sender.wants() == {digest_of(C): 0}
            await sender.send(C)
            assert await sender.exit() == {"image": image_id(A, C)}
        assert host.engine.last_blobs == blobs(C)

    run(work())


def test_a_new_name_for_what_is_there_asks_for_nothing(host: Host) -> None:
    async def work() -> None:
        async with host.talking() as peer:
            await Sender(peer).bring(A)
        async with host.talking() as peer:
            sender = Sender(peer)
            await sender.begin(request(A, names=["localhost/web:v2", "localhost/web:new"]))
            assert await sender.exit() == {"image": image_id(A)}
        assert host.engine.images[image_id(A)] == ["localhost/web:v2", "localhost/web:new"]

    run(work())


def test_an_image_that_is_there_under_this_name_is_not_loaded_again(host: Host) -> None:
    async def work() -> None:
        async with host.talking() as peer:
            await Sender(peer).bring(A)
        async with host.talking() as peer:
            sender = Sender(peer)
            await sender.begin(request(A))
            assert await sender.exit() == {"image": image_id(A), "present": True}
        assert len(host.engine.archives) == 1

    run(work())


def test_a_layer_that_an_image_has_twice_comes_once(host: Host) -> None:
    async def work() -> None:
        async with host.talking() as peer:
            assert await Sender(peer).bring(A, C, A) == {"image": image_id(A, C, A)}

    run(work())


def test_when_the_engine_does_not_find_a_layer_that_it_listed_all_are_asked_for(host: Host) -> None:
    host.engine.says_it_has = {digest_of(A)}

    async def work() -> None:
        async with host.talking() as peer:
            sender = Sender(peer)
            await sender.begin(request(A, B))
            assert await sender.wants() == {digest_of(B): 0}
            await sender.send(B)
            assert await sender.wants() == {digest_of(A): 0}  # B is here, verified
            await sender.send(A)
            assert await sender.exit() == {"image": image_id(A, B)}
        assert host.files() == {}

    run(work())


# ---- cuts ---------------------------------------------------------------------------------------------------------------


async def cut_after(host: Host, asked: ImageLoad, sent: bytes, *, written: Callable[[], object]) -> None:
    """An upload whose connection breaks once so much of it is `written`."""
    async with serving(host.desk, host.folder, uploads=str(host.uploads)) as (_, path), connected(path) as peer:
        sender = Sender(peer)
        await sender.begin(asked)
        await sender.wants()
        await sender.send(sent)
        await until(written)


def a_part(host: Host) -> Callable[[], object]:
    return lambda: sum(host.files().values()) > 0


def all_of_it(host: Host, layer: bytes) -> Callable[[], object]:
    return lambda: digest_of(layer)[7:] in host.files()


def test_an_upload_that_was_cut_goes_on_where_it_was(host: Host) -> None:
    async def work() -> None:
        await cut_after(host, request(A), A[:600_000], written=a_part(host))
        assert host.engine.archives == []
        (have,) = host.files().values()
        assert 0 < have <= 600_000
        async with host.talking() as peer:
            sender = Sender(peer)
            await sender.begin(request(A))
            assert await sender.wants() == {digest_of(A): have}
            await sender.send(A[have:])
            assert await sender.exit() == {"image": image_id(A)}
        assert host.files() == {}

    run(work())


def test_a_layer_that_was_whole_before_the_cut_is_not_asked_for_again(host: Host) -> None:
    async def work() -> None:
        await cut_after(host, request(C, B), C, written=all_of_it(host, C))
        async with host.talking() as peer:
            sender = Sender(peer)
            await sender.begin(request(C, B))
            assert await sender.wants() == {digest_of(B): 0}
            await sender.send(B)
            assert await sender.exit() == {"image": image_id(C, B)}

    run(work())


def test_an_upload_that_was_cut_while_a_layer_was_checked_does_not_disturb_the_next(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking, go = threading.Event(), threading.Event()
    finish = Incoming.finish

    def slowly(incoming: Incoming) -> None:
        checking.set()
        go.wait(20)
        finish(incoming)

    monkeypatch.setattr(Incoming, "finish", slowly)

    async def work() -> None:
        up = str(host.uploads)
        async with serving(host.desk, host.folder, uploads=up) as (_, path), connected(path) as peer:
            async with connected(path) as cut:
                sender = Sender(cut)
                await sender.begin(request(C))
                await sender.wants()
                await sender.send(C)
                await until(checking.is_set)
            sender = Sender(peer)
            await sender.begin(request(C))
            asyncio.get_running_loop().call_later(0.2, go.set)  # the next one could be in its way by then
            assert await sender.exit() == {"image": image_id(C)}

    run(work())


def test_a_part_that_was_damaged_on_the_disk_is_asked_for_again_from_its_beginning(host: Host) -> None:
    async def work() -> None:
        await cut_after(host, request(A), A[:600_000], written=a_part(host))
        (part,) = host.uploads.iterdir()
        part.write_bytes(bytes([A[0] ^ 1]) + part.read_bytes()[1:])
        have = part.stat().st_size
        async with host.talking() as peer:
            sender = Sender(peer)
            await sender.begin(request(A))
            assert await sender.wants() == {digest_of(A): have}
            await sender.send(A[have:])
            assert await sender.wants() == {digest_of(A): 0}
            assert host.engine.archives == []
            await sender.send(A)
            assert await sender.exit() == {"image": image_id(A)}

    run(work())


def test_a_peer_that_falls_silent_makes_way_for_others_and_what_it_sent_is_kept(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imageload, "SILENCE_S", 2.0)

    async def work() -> None:
        up = str(host.uploads)
        async with (
            serving(host.desk, host.folder, uploads=up) as (_, path),
            connected(path) as silent,
            connected(path) as other,
        ):
            sender = Sender(silent)
            await sender.begin(request(A))
            await sender.wants()
            await sender.send(A[:600_000])
            assert await Sender(other).bring(B) == {"image": image_id(B)}
            error = (await sender.exit())["error"]["message"]
            assert "nothing came" in error
            assert "kept" in error
        assert list(host.files()) == [digest_of(A)[7:] + ".part"]

    run(work())


# ---- what is never loaded -----------------------------------------------------------------------------------------------


def test_a_layer_with_one_bit_flipped_on_its_way_is_never_loaded(host: Host) -> None:
    flipped = bytearray(A)
    flipped[350_000] ^= 1

    async def work() -> None:
        async with host.talking() as peer:
            sender = Sender(peer)
            await sender.begin(request(A))
            await sender.wants()
            await sender.send(bytes(flipped))
            assert "arrived damaged" in (await sender.exit())["error"]["message"]
        assert host.engine.archives == []
        assert host.files() == {}

    run(work())


GOOD = request(A, C)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (replace(GOOD, config=configuration([C, A]).decode()), "names other layers"),
        (replace(GOOD, config="[]"), "not the configuration"),
        (replace(GOOD, config="{"), "not the configuration"),
        (replace(GOOD, layers=(ImageLayer("sha256:../../etc/passwd", 1),)), "a SHA-256 and a size"),
        (replace(GOOD, layers=(ImageLayer(digest_of(A), -1),)), "a SHA-256 and a size"),
        (replace(GOOD, layers=(ImageLayer(digest_of(A), 1), ImageLayer(digest_of(A), 2))), "two sizes"),
        (replace(GOOD, names=("--rm:1",)), "no name for an image"),
        (replace(GOOD, names=("localhost/web",)), "no name for an image"),
        (replace(GOOD, names=("localhost/web:v1\n",)), "no name for an image"),
        (replace(GOOD, layers=GOOD.layers * 300), "at most"),
    ],
)
def test_a_request_that_does_not_hold_together_is_refused_before_anything_is_written(
    host: Host, asked: ImageLoad, problem: str
) -> None:
    async def work() -> None:
        async with host.talking() as peer:
            assert problem in (await peer.call(protocol.IMAGE_LOAD, asked))["error"]["message"]
        assert host.files() == {}

    run(work())


def test_what_the_engine_refuses_is_told_and_the_layers_stay_for_another_try(host: Host) -> None:
    host.engine.fault = RuntimeFault("no-space", "no space left on device")

    async def work() -> None:
        async with host.talking() as peer:
            assert (await Sender(peer).bring(A))["error"]["message"] == "no space left on device"
        host.engine.fault = None
        async with host.talking() as peer:
            sender = Sender(peer)
            await sender.begin(request(A))
            assert await sender.exit() == {"image": image_id(A)}

    run(work())


# ---- the disk -----------------------------------------------------------------------------------------------------------


def test_a_disk_that_would_get_too_full_takes_no_image(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imageload, "RESERVE_BYTES", shutil.disk_usage(host.folder).total)

    async def work() -> None:
        async with host.talking() as peer:
            sender = Sender(peer)
            await sender.begin(request(A))
            assert "must stay free" in (await sender.exit())["error"]["message"]

    run(work())


def test_a_disk_that_fills_while_a_layer_comes_ends_the_upload(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imageload, "CHECK_BYTES", 100_000)

    async def work() -> None:
        async with host.talking() as peer:
            sender = Sender(peer)
            await sender.begin(request(A))
            await sender.wants()
            monkeypatch.setattr(imageload, "RESERVE_BYTES", shutil.disk_usage(host.folder).total)
            await sender.send(A[:600_000])
            assert "must stay free" in (await sender.exit())["error"]["message"]

    run(work())


def test_leftovers_go_after_a_day_and_the_oldest_when_they_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LayerStore(tmp_path / "up")
    store.clean()
    now = layers.time.time()
    for name, age_s in (("old", 90_000.0), ("large", 600.0), ("young", 60.0), ("kept", 90_000.0)):
        path = store.directory / f"{name}.part"
        path.write_bytes(bytes(1000))
        os.utime(path, (now - age_s, now - age_s))
    monkeypatch.setattr(layers, "LEFTOVER_BYTES_MAX", 1500)
    store.clean(keep=["sha256:kept"])
    assert sorted(path.name for path in store.directory.iterdir()) == ["kept.part", "young.part"]


def test_an_agent_without_a_place_for_images_refuses(host: Host) -> None:
    async def work() -> None:
        async with talking(host.desk, host.folder) as peer:
            assert (await peer.call(protocol.IMAGE_LOAD, request(C)))["error"]["code"] == protocol.FAILED_CODE

    run(work())


def test_the_archive_has_the_same_manifest_on_every_host_whatever_came(host: Host) -> None:
    """So the image has one digest in the cluster, not one per host."""

    async def work() -> None:
        async with host.talking() as peer:
            await Sender(peer).bring(A, B)
        async with host.talking() as peer:
            await Sender(peer).bring(A, B, C)
        host.engine.held.clear()
        host.engine.images.clear()
        async with host.talking() as peer:
            await Sender(peer).bring(A, B, C)
        partly, wholly = host.engine.archives[1:]
        assert partly["index.json"] == wholly["index.json"]

    run(work())
