"""nodeagent.podman_service against a small HTTP server on a unix socket: deadlines, threads given up, what Podman's errors mean."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from nodeagent import podman_runtime, podman_service, process
from nodeagent.podman_runtime import PodmanRuntime
from nodeagent.podman_service import PodmanService, fault
from nodeagent.runtime import LABEL_CLUSTER, RuntimeFault

Handler = Callable[[str], Awaitable[tuple[int, bytes]]]


@contextlib.asynccontextmanager
async def serving(path: Path, handler: Handler) -> AsyncIterator[PodmanService]:
    """A service whose server answers each request line with what `handler` gives, one request per connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            status, body = await handler(head.splitlines()[0])
            writer.write(
                b"HTTP/1.1 %d x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body
            )
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    service = PodmanService(str(path))
    try:
        yield service
    finally:
        service.close()
        server.close()


def test_a_call_that_is_not_answered_ends_at_its_deadline_and_others_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def handler(line: str) -> tuple[int, bytes]:
            if "/hangs" in line:
                await release.wait()
            return 200, b'{"line": "%s"}' % line.encode()

        async with serving(tmp_path / "s", handler) as service:
            hanging = asyncio.ensure_future(service.get("/hangs", timeout_s=0.2))
            answer = await service.get("/info", timeout_s=5.0)
            assert "/libpod/info" in answer.data["line"]
            with pytest.raises(RuntimeFault) as error:
                await hanging
            assert error.value.reason == "timeout"
            release.set()

    asyncio.run(scenario())


def test_when_too_many_calls_hang_further_ones_are_refused_until_they_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a cancelled call any more, but its thread does."""
    monkeypatch.setattr(podman_service, "HANGING_MAX", 2)

    async def scenario() -> None:
        release = asyncio.Event()

        async def handler(line: str) -> tuple[int, bytes]:
            if "/hangs" in line:
                await release.wait()
            return 200, b""

        async with serving(tmp_path / "s", handler) as service:
            calls = [asyncio.ensure_future(service.get("/hangs", timeout_s=30.0)) for _ in range(2)]
            await asyncio.sleep(0.1)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            with pytest.raises(RuntimeFault, match="2 calls were not answered") as error:
                await service.get("/info", timeout_s=5.0)
            assert error.value.reason == "unavailable"
            release.set()
            while True:
                with contextlib.suppress(RuntimeFault):
                    assert (await service.get("/info", timeout_s=5.0)).status == 200
                    break
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_calls_that_wait_for_others_are_refused_when_those_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(podman_service, "HANGING_MAX", 2)
    monkeypatch.setattr(podman_service, "CALLS_MAX", 2)

    async def scenario() -> None:
        release = asyncio.Event()
        asked = 0

        async def handler(line: str) -> tuple[int, bytes]:
            nonlocal asked
            asked += "/hangs" in line
            await release.wait()
            return 200, b""

        async with serving(tmp_path / "s", handler) as service:
            first = [asyncio.ensure_future(service.get("/hangs", timeout_s=30.0)) for _ in range(2)]
            waiting = [asyncio.ensure_future(service.get("/hangs", timeout_s=30.0)) for _ in range(8)]
            while asked < 2:
                await asyncio.sleep(0.01)
            for call in first:
                call.cancel()
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert [end.reason for end in ends if isinstance(end, RuntimeFault)] == ["unavailable"] * 8
            assert asked == 2
            release.set()

    asyncio.run(scenario())


def test_a_call_waits_for_others_no_longer_than_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman_service, "CALLS_MAX", 1)

    async def scenario() -> None:
        asked, release = asyncio.Event(), asyncio.Event()

        async def handler(line: str) -> tuple[int, bytes]:
            asked.set()
            await release.wait()
            return 200, b""

        async with serving(tmp_path / "s", handler) as service:
            slow = asyncio.ensure_future(service.get("/slow", timeout_s=30.0))
            await asked.wait()
            with pytest.raises(RuntimeFault, match="busy with 1 other calls") as late:
                await service.get("/quick", timeout_s=0.2)
            assert late.value.reason == "timeout"
            release.set()
            await slow
            assert (await service.get("/quick", timeout_s=5.0)).status == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("writing blob: write /var/lib/containers/x: no space left on device", "no-space"),
        ("initializing source docker://r/a:1: manifest unknown", "pull-failed"),
    ],
)
def test_why_a_pull_failed_is_told_in_the_middle_of_its_answer(tmp_path: Path, told: str, reason: str) -> None:
    async def handler(line: str) -> tuple[int, bytes]:
        return 200, json.dumps({"error": told}).encode() + b"\n"

    async def scenario() -> None:
        async with serving(tmp_path / "s", handler):
            with pytest.raises(RuntimeFault) as failed:
                await PodmanRuntime(str(tmp_path / "s")).pull("r/a:1", None)
            assert (failed.value.reason, told in str(failed.value)) == (reason, True)

    asyncio.run(scenario())


def test_an_answer_that_is_no_json_is_a_failure(tmp_path: Path) -> None:
    async def handler(line: str) -> tuple[int, bytes]:
        return 200, b"<html>"

    async def scenario() -> None:
        async with serving(tmp_path / "s", handler) as service:
            with pytest.raises(RuntimeFault, match="not understood") as error:
                await service.get("/info", timeout_s=5.0)
            assert error.value.reason == "failed"

    asyncio.run(scenario())


def test_an_expected_status_is_an_answer_and_others_are_faults(tmp_path: Path) -> None:
    async def handler(line: str) -> tuple[int, bytes]:
        return 404, b'{"message": "no such container"}'

    async def scenario() -> None:
        async with serving(tmp_path / "s", handler) as service:
            assert (await service.get("/containers/x/json", timeout_s=5.0, expect=(404,))).status == 404
            with pytest.raises(RuntimeFault) as error:
                await service.get("/containers/x/json", timeout_s=5.0)
            assert error.value.reason == "not-found"

    asyncio.run(scenario())


def test_an_image_whose_layers_are_lost_does_not_hide_those_of_others(tmp_path: Path) -> None:
    """A push is what mends it: that asks first what is there."""

    async def handler(line: str) -> tuple[int, bytes]:
        if "/images/json" in line:
            return 200, b'[{"Id": "aa"}, {"Id": "bb"}]'
        if "/images/bb/" in line:
            return 500, b'{"message": "runtime error: invalid memory address or nil pointer dereference"}'
        return 200, b'{"RootFS": {"Layers": ["sha256:1"]}}'

    async def scenario() -> None:
        async with serving(tmp_path / "s", handler):
            assert await PodmanRuntime(str(tmp_path / "s")).layers() == {"sha256:1"}

    asyncio.run(scenario())


@pytest.mark.parametrize(("status", "reason"), [(500, "unavailable"), (404, "not-found")])
def test_a_container_that_was_started_and_cannot_be_looked_at_is_not_said_to_have_failed(
    tmp_path: Path, status: int, reason: str
) -> None:
    """It may run: a next attempt beside it would be a second one."""

    async def handler(line: str) -> tuple[int, bytes]:
        return (204, b"") if line.startswith("POST") else (status, b'{"message": "database is locked"}')

    async def scenario() -> None:
        async with serving(tmp_path / "s", handler):
            with pytest.raises(RuntimeFault) as error:
                await PodmanRuntime(str(tmp_path / "s")).start_container("c1")
            assert error.value.reason == reason

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["container", "pod"])
@pytest.mark.parametrize("is_ours", [True, False])
def test_what_is_removed_takes_its_own_process_with_it_and_never_another_one_with_that_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_ours: bool
) -> None:
    """With its conmon killed too, a container runs for ever as Podman says, and its process id is somebody else's one day."""
    container_id, deleted = "c" * 64, []
    monkeypatch.setattr(process, "is_in_group", lambda found, name: is_ours and name == container_id)

    async def scenario() -> None:
        sleeper = await asyncio.create_subprocess_exec("sleep", "1000")

        async def handler(line: str) -> tuple[int, bytes]:
            labels = {LABEL_CLUSTER: "ours"}
            if line.startswith("DELETE"):
                deleted.append(line)
                return 200, b"[]"
            if "/exists" in line:
                return (404, b"{}") if deleted else (204, b"")
            if "/pods/" in line:
                return 200, json.dumps({"Id": "pod", "Labels": labels}).encode()
            if "/containers/json" in line:
                return 200, json.dumps([{"Id": container_id, "Pid": sleeper.pid}]).encode()
            state = {"Status": "running", "Pid": sleeper.pid}
            return 200, json.dumps({"Id": container_id, "Config": {"Labels": labels}, "State": state}).encode()

        async with serving(tmp_path / "s", handler):
            runtime = PodmanRuntime(str(tmp_path / "s"))
            await (runtime.remove_pod("pod") if kind == "pod" else runtime.remove_container(container_id))
        assert deleted
        if is_ours:
            assert await asyncio.wait_for(sleeper.wait(), 5) == -signal.SIGKILL
        else:
            assert sleeper.returncode is None
            sleeper.kill()
            await sleeper.wait()

    asyncio.run(scenario())


# Messages of Podman, most of them as 4.3.1 answered.
MESSAGES = [
    (
        500,
        'creating container storage: the container name "a" is already in use by 60. You have to remove it',
        "conflict",
    ),
    (409, "anything", "conflict"),
    (500, "cannot listen on the TCP port: listen tcp4 :18080: bind: address already in use", "port-taken"),
    (404, "localhost/none:1: image not known", "image-missing"),
    (404, "no such image", "image-missing"),
    (404, 'no container with name or ID "c1" found: no such container', "not-found"),
    (404, "unable to find network with name or ID sshoal: network not found", "not-found"),
    (500, "writing blob: write /var/lib/x: no space left on device", "no-space"),
    (500, "crun: setrlimit `RLIMIT_NOFILE`: Operation not permitted: OCI permission denied", "failed"),
    (500, "conmon exited prematurely, exit code could not be retrieved: internal libpod error", "failed"),
    (500, "pod already exists", "conflict"),
]


@pytest.mark.parametrize(("status", "message", "reason"), MESSAGES, ids=[item[1][:40] for item in MESSAGES])
def test_what_podmans_errors_mean(status: int, message: str, reason: str) -> None:
    found = fault("POST /x", status, json.dumps({"message": message, "cause": "c", "response": status}))
    assert (found.reason, str(found)) == (reason, message)


@pytest.mark.parametrize("text", ["", "plain", "[1]", '{"message": null}', "x" * 10_000])
def test_an_error_in_any_shape_is_a_fault_of_bounded_length(text: str) -> None:
    found = fault("POST /x", 500, text)
    assert found.reason == "failed"
    assert 0 < len(str(found)) <= podman_service.MESSAGE_LENGTH_MAX


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("SIGQUIT", "SIGQUIT"),
        ("quit", "SIGQUIT"),
        ("3", "SIGQUIT"),
        ("RTMIN+3", "SIGRTMIN+3"),
        ("SIGRTMIN+3", "SIGRTMIN+3"),
        ("37", "SIGRTMIN+3"),
        ("", ""),
        ("SIGNONSENSE", ""),
        ("SIGRTMIN+99", ""),
        ("SIGQUIT+1", ""),
        ("999", ""),
        ("0", ""),
    ],
)
def test_the_stop_signal_of_an_image_is_read_however_it_is_written(said: str, name: str) -> None:
    assert podman_runtime._image({"Id": "ab", "Config": {"StopSignal": said}}).stop_signal == name
