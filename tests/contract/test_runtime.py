"""One contract for the container engine, held by FakePodman (virtual time) and by a real Podman. FAULTS §1, facts 1 to 5, are in it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nodeagent import protocol
from nodeagent.runtime import (
    LABEL_ATTEMPT,
    LABEL_CONTAINER,
    LABEL_UID,
    ContainerInfo,
    Exit,
    Process,
    Runtime,
    RuntimeFault,
)
from nodeagent.spec import container_name, pod_body, pod_name
from tests.contract.engines import (
    CLUSTER,
    LABELS,
    NODE,
    SUBNET,
    Engine,
    body_of,
    container,
    eventually,
    pod,
    run_on,
    start_pod,
)

PATIENT_S = 60.0  # for commands that end at once, save on an emulated processor with work beside

Scenario = Callable[[Engine], Coroutine[Any, Any, None]]


def on_both(scenario: Scenario) -> Any:
    """Makes a scenario one test per engine."""

    @pytest.mark.parametrize("kind", ["fake", pytest.param("podman", marks=pytest.mark.podman)])
    def test(kind: str, request: pytest.FixtureRequest) -> None:
        podman = request.getfixturevalue("private_podman") if kind == "podman" else None
        run_on(kind, podman, scenario)

    test.__doc__ = scenario.__doc__
    return test


async def running(engine: Engine, behaviour: str = "serve", **changes: Any) -> tuple[protocol.Pod, str, str, Process]:
    """(pod, its id, id of its running container, that container's process)."""
    wanted = pod(container(engine, behaviour), **changes)
    pod_id = await start_pod(engine, wanted)
    container_id = await engine.runtime.create_container(await body_of(engine, wanted, pod_id))
    return wanted, pod_id, container_id, await engine.runtime.start_container(container_id)


async def listed(runtime: Runtime, container_id: str) -> ContainerInfo | None:
    return next((item for item in (await runtime.list()).containers if item.id == container_id), None)


# ---- pods and containers ----------------------------------------------------------------------------------------------------


@on_both
async def test_a_started_pod_is_listed_with_labels_address_and_living_processes(engine: Engine) -> None:
    wanted, pod_id, container_id, process = await running(engine)
    runtime = engine.runtime
    net = await runtime.pod_net(pod_id)
    listing = await runtime.list()
    pod_info = next(item for item in listing.pods if item.id == pod_id)
    info = next(item for item in listing.containers if item.id == container_id)
    infra = next(item for item in listing.containers if item.id == pod_info.infra_id)

    assert net.ip.startswith("10.99.0.")
    assert net.process is not None and runtime.is_alive(net.process)
    assert (pod_info.name, pod_info.labels[LABEL_UID]) == (pod_name(CLUSTER, wanted), wanted.uid)
    assert (info.name, info.pod_id, info.state) == (container_name(CLUSTER, wanted, "app", 0), pod_id, "running")
    assert (info.labels[LABEL_CONTAINER], info.labels[LABEL_ATTEMPT]) == ("app", "0")
    assert info.process == process and runtime.is_alive(process)
    assert infra.is_infra and not info.is_infra
    image = await runtime.image(wanted.containers[0].image)
    assert image is not None and info.image_id == image.id


@on_both
async def test_a_killed_container_is_replaced_in_the_same_pod_which_keeps_its_address(engine: Engine) -> None:
    wanted, pod_id, first, process = await running(engine)
    before = await engine.runtime.pod_net(pod_id)
    await engine.kill(first)
    await engine.runtime.wait_exit(process)
    assert not engine.runtime.is_alive(process)
    assert await engine.runtime.exit_of(first) == Exit(137)
    second = await engine.runtime.create_container(await body_of(engine, wanted, pod_id, attempt=1))
    assert engine.runtime.is_alive(await engine.runtime.start_container(second))
    assert await engine.runtime.pod_net(pod_id) == before
    info = await listed(engine.runtime, first)
    assert info is not None and (info.state, info.exit_code, info.process) == ("exited", 137, None)


@on_both
async def test_wait_exit_returns_at_once_for_a_process_that_is_gone(engine: Engine) -> None:
    _, _, container_id, process = await running(engine)
    await engine.kill(container_id)
    await engine.runtime.wait_exit(process)
    await engine.runtime.wait_exit(process)
    await engine.runtime.wait_exit(Process(process.pid, process.start_ticks + 1))


@on_both
async def test_the_exit_code_of_a_container_that_ends_by_itself_is_known(engine: Engine) -> None:
    _, _, container_id, process = await running(engine, "exits-3")
    await engine.runtime.wait_exit(process)
    assert await engine.runtime.exit_of(container_id) == Exit(3)


@on_both
async def test_a_container_that_ends_while_it_is_started_has_an_exit_code_too(engine: Engine) -> None:
    _, _, container_id, process = await running(engine, "exits-at-once")
    await engine.runtime.wait_exit(process)
    assert await engine.runtime.exit_of(container_id) == Exit(4)


@on_both
async def test_a_command_that_does_not_exist_fails_at_start(engine: Engine) -> None:
    wanted = pod(container(engine, "broken"))
    pod_id = await start_pod(engine, wanted)
    container_id = await engine.runtime.create_container(await body_of(engine, wanted, pod_id))
    with pytest.raises(RuntimeFault, match=r"(?i)no such file or directory") as fault:
        await engine.runtime.start_container(container_id)
    assert fault.value.reason == "failed"


@on_both
async def test_an_image_that_is_not_here_is_said_to_be_missing(engine: Engine) -> None:
    wanted = pod(protocol.Container("app", "localhost/none:1"))
    pod_id = await start_pod(engine, wanted)
    with pytest.raises(RuntimeFault) as fault:
        await engine.runtime.create_container(await body_of(engine, wanted, pod_id))
    assert fault.value.reason == "image-missing"


@on_both
async def test_a_host_port_that_is_taken_is_named(engine: Engine) -> None:
    port = protocol.Port(container_port=8080, host_port=18080)
    holder, late = (pod(container(engine, ports=(port,))) for _ in range(2))
    holder_id = await start_pod(engine, holder)
    with pytest.raises(RuntimeFault, match="18080") as fault:
        await start_pod(engine, late)
    assert fault.value.reason == "port-taken"
    await engine.runtime.remove_pod(holder_id)
    late_id = await engine.runtime.create_pod(pod_body(CLUSTER, late, NODE, engine.paths()))
    assert (await engine.runtime.start_pod(late_id)).process is not None
    await engine.runtime.remove_pod(late_id)


@on_both
async def test_a_pod_whose_infra_container_died_has_no_process(engine: Engine) -> None:
    _, pod_id, _, _ = await running(engine)
    infra_id = next(item.infra_id for item in (await engine.runtime.list()).pods if item.id == pod_id)
    await engine.kill(infra_id)
    assert (await engine.runtime.pod_net(pod_id)).process is None


# ---- facts 1 to 5 -----------------------------------------------------------------------------------------------------------


@on_both
async def test_fact_1_conmon_and_payload_killed_is_told_by_the_process_alone_and_removal_works(engine: Engine) -> None:
    """Podman goes on saying running and its start does nothing; the listing has no process, and remove is retried until it is true."""
    wanted, pod_id, container_id, process = await running(engine)
    await engine.kill(container_id, conmon=True)
    await engine.runtime.wait_exit(process)
    info = await listed(engine.runtime, container_id)
    assert info is not None and (info.state, info.process) == ("running", None)
    with pytest.raises(RuntimeFault, match="says running"):
        await engine.runtime.start_container(container_id)
    assert await engine.runtime.exit_of(container_id) == Exit(None)
    await engine.runtime.remove_container(container_id)
    assert await listed(engine.runtime, container_id) is None
    again = await engine.runtime.create_container(await body_of(engine, wanted, pod_id))
    assert engine.runtime.is_alive(await engine.runtime.start_container(again))


@on_both
async def test_fact_2_without_conmon_the_payload_lives_on_and_its_exit_code_is_lost(engine: Engine) -> None:
    _, _, container_id, process = await running(engine)
    await engine.kill(container_id, conmon=True, payload=False)
    assert engine.runtime.is_alive(process)
    info = await listed(engine.runtime, container_id)
    assert info is not None and (info.state, info.process) == ("running", process)
    await engine.runtime.signal(container_id, process, "SIGKILL")
    await engine.runtime.wait_exit(process)
    assert await engine.runtime.exit_of(container_id) == Exit(None)
    await engine.runtime.remove_container(container_id)
    assert await listed(engine.runtime, container_id) is None


@pytest.mark.parametrize("stage", ["created", "external"])
@pytest.mark.parametrize("kind", ["fake", pytest.param("podman", marks=pytest.mark.podman)])
def test_fact_3_what_an_interrupted_create_left_is_listed_and_does_not_hold_its_name(
    kind: str, stage: str, request: pytest.FixtureRequest
) -> None:
    """A Created record, or a name in storage that Podman's own plain listing does not show."""

    async def scenario(engine: Engine) -> None:
        wanted = pod(container(engine))
        pod_id = await start_pod(engine, wanted)
        first, second = [await body_of(engine, wanted, pod_id, attempt) for attempt in (0, 1)]
        for body in (first, second):
            await engine.leave(body, stage=stage)
        left = {item.name: item for item in (await engine.runtime.list()).containers}
        assert [left[body["name"]].state for body in (first, second)] == [stage, stage]
        assert left[first["name"]].process is None

        await engine.runtime.remove_container(left[first["name"]].id)
        assert first["name"] not in {item.name for item in (await engine.runtime.list()).containers}
        container_id = await engine.runtime.create_container(second)
        assert engine.runtime.is_alive(await engine.runtime.start_container(container_id))

    run_on(kind, request.getfixturevalue("private_podman") if kind == "podman" else None, scenario)


@on_both
async def test_fact_3_a_create_given_up_at_any_moment_can_be_made_again(engine: Engine) -> None:
    chance = random.Random(3)
    for _ in range(8):
        wanted = pod(container(engine))
        pod_id = await start_pod(engine, wanted)
        body = await body_of(engine, wanted, pod_id)
        attempt = asyncio.ensure_future(engine.runtime.create_container(body))
        await asyncio.sleep(chance.uniform(0.0, 0.04))
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        container_id = await engine.runtime.create_container(body)
        assert engine.runtime.is_alive(await engine.runtime.start_container(container_id))
        await engine.runtime.remove_pod(pod_id)


@on_both
async def test_fact_4_a_name_in_use_by_ours_is_replaced_and_by_a_foreign_one_refused(engine: Engine) -> None:
    wanted, pod_id, old, process = await running(engine)
    new = await engine.runtime.create_container(await body_of(engine, wanted, pod_id))
    assert new != old
    assert not engine.runtime.is_alive(process)
    assert await listed(engine.runtime, old) is None

    body = await body_of(engine, wanted, pod_id, attempt=9)
    foreign = await engine.add_foreign(body["name"])
    with pytest.raises(RuntimeFault, match="not ours") as fault:
        await engine.runtime.create_container(body)
    assert fault.value.reason == "conflict"
    assert await listed(engine.runtime, foreign) is None
    assert await engine.foreign_lives(foreign)


@on_both
async def test_fact_4_a_pod_of_the_same_name_is_replaced_with_all_that_ran_in_it(engine: Engine) -> None:
    wanted, old, _, process = await running(engine)
    new = await engine.runtime.create_pod(pod_body(CLUSTER, wanted, NODE, engine.paths()))
    assert new != old
    assert not engine.runtime.is_alive(process)
    assert [item.id for item in (await engine.runtime.list()).pods if item.labels[LABEL_UID] == wanted.uid] == [new]


@on_both
async def test_labels_for_selinux_are_taken_and_change_nothing_where_it_is_off(engine: Engine) -> None:
    wanted = pod(container(engine))
    pod_id = await start_pod(engine, wanted, selinux=True)
    body = await body_of(engine, wanted, pod_id, selinux=True)
    assert body["selinux_opts"]
    assert [mount for mount in body["mounts"] if "Z" in mount["options"]]
    process = await engine.runtime.start_container(await engine.runtime.create_container(body))
    assert engine.runtime.is_alive(process)


@on_both
async def test_fact_5_a_payload_may_ignore_sigterm_but_not_sigkill(engine: Engine) -> None:
    _, _, container_id, process = await running(engine, "deaf")
    if engine.is_real:
        await eventually(lambda: _handles_term(process))
    await engine.runtime.signal(container_id, process, "SIGTERM")
    await asyncio.sleep(0.3)
    assert engine.runtime.is_alive(process)
    await engine.runtime.signal(container_id, process, "SIGKILL")
    await engine.runtime.wait_exit(process)
    assert (await engine.runtime.exit_of(container_id)).code == 137


@on_both
async def test_sigterm_ends_a_payload_that_handles_it_and_signals_to_the_dead_are_no_error(engine: Engine) -> None:
    _, _, container_id, process = await running(engine)
    if engine.is_real:
        await eventually(lambda: _handles_term(process))
    await engine.runtime.signal(container_id, process, "SIGTERM")
    await engine.runtime.wait_exit(process)
    assert await engine.runtime.exit_of(container_id) == Exit(143)
    await engine.runtime.signal(container_id, process, "SIGTERM")


async def _handles_term(process: Process) -> bool:
    """Whether the shell has come to its `trap`: until then the kernel drops a SIGTERM for a container's first process."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return bool((int(status["SigIgn"], 16) | int(status["SigCgt"], 16)) & 1 << 14)


# ---- removal ----------------------------------------------------------------------------------------------------------------


@on_both
async def test_removal_takes_record_and_process_and_may_be_repeated(engine: Engine) -> None:
    _, pod_id, container_id, process = await running(engine, "deaf")
    net = await engine.runtime.pod_net(pod_id)
    await engine.runtime.remove_container(container_id)
    assert not engine.runtime.is_alive(process)
    await engine.runtime.remove_container(container_id)
    await engine.runtime.remove_pod(pod_id)
    assert net.process is not None and not engine.runtime.is_alive(net.process)
    await engine.runtime.remove_pod(pod_id)
    assert pod_id not in {item.id for item in (await engine.runtime.list()).pods}


@on_both
async def test_a_pod_whose_conmons_were_killed_can_be_removed(engine: Engine) -> None:
    _, pod_id, container_id, _ = await running(engine)
    infra_id = next(item.infra_id for item in (await engine.runtime.list()).pods if item.id == pod_id)
    for victim in (container_id, infra_id):
        await engine.kill(victim, conmon=True)
    await engine.runtime.remove_pod(pod_id)
    listing = await engine.runtime.list()
    assert not [item for item in listing.containers if item.pod_id == pod_id]
    assert pod_id not in {item.id for item in listing.pods}


# ---- inside -----------------------------------------------------------------------------------------------------------------


@on_both
async def test_exec_gives_output_and_exit_code(engine: Engine) -> None:
    _, _, container_id, _ = await running(engine)
    result = await engine.runtime.exec(container_id, ("echo", "hello"), PATIENT_S)
    assert (result.code, result.output) == (0, b"hello\n")
    assert (await engine.runtime.exec(container_id, ("false",), PATIENT_S)).code == 1
    assert (await engine.runtime.exec(container_id, ("sh", "-c", "exit 7"), PATIENT_S)).code == 7


@on_both
async def test_exec_past_its_deadline_has_no_exit_code(engine: Engine) -> None:
    _, _, container_id, _ = await running(engine)
    assert (await engine.runtime.exec(container_id, ("sleep", "77"), 0.5)).code is None
    if engine.is_real:
        assert b"sleep 77" not in (await engine.runtime.exec(container_id, ("ps",), PATIENT_S)).output


@on_both
async def test_exec_in_a_container_that_is_gone_fails(engine: Engine) -> None:
    _, _, container_id, process = await running(engine)
    await engine.kill(container_id)
    await engine.runtime.wait_exit(process)
    await engine.runtime.exit_of(container_id)
    with pytest.raises(RuntimeFault):
        await engine.runtime.exec(container_id, ("true",), 5.0)


@on_both
async def test_an_exec_session_carries_both_directions_until_input_ends(engine: Engine) -> None:
    _, _, container_id, _ = await running(engine)
    session = await engine.runtime.exec_stream(container_id, ("cat",), tty=False, stdin=True)
    await session.write(b"one\n")
    received = b""
    async for stream, chunk in session:
        assert stream == protocol.STDOUT
        received += chunk
        if received == b"one\n":
            await session.write(b"two\n")
            await session.end_input()
    assert received == b"one\ntwo\n"
    assert await session.exit_code() == 0
    await session.close()


@on_both
async def test_a_connection_reaches_a_port_inside_the_pod(engine: Engine) -> None:
    _, pod_id, container_id, _ = await running(engine)
    net = await engine.runtime.pod_net(pod_id)
    assert net.process is not None
    if engine.is_real:
        await eventually(lambda: _listens(engine.runtime, container_id))
    reader, writer = await engine.runtime.connect(net.process, 8080, 5.0)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    await writer.drain()
    assert b"HTTP/1." in await reader.read(64)
    writer.close()


async def _listens(runtime: Runtime, container_id: str) -> bool:
    return (await runtime.exec(container_id, ("nc", "-w", "1", "127.0.0.1", "8080"), 3.0)).code == 0


# ---- network and images -----------------------------------------------------------------------------------------------------


@on_both
async def test_the_network_is_made_once_and_not_changed_while_in_use(engine: Engine) -> None:
    await running(engine)
    await engine.runtime.ensure_network(SUBNET, LABELS)
    with pytest.raises(RuntimeFault, match=r"10\.99\.0\.0/24") as fault:
        await engine.runtime.ensure_network("10.98.0.0/24", LABELS)
    assert fault.value.reason == "conflict"


@on_both
async def test_an_image_is_found_by_name_and_by_id_and_a_missing_one_is_none(engine: Engine) -> None:
    name = engine.image("serve")
    image = await engine.runtime.image(name)
    assert image is not None and image.names == (name,)
    assert await engine.runtime.image(image.id) == image
    assert image.id in {item.id for item in await engine.runtime.images()}
    assert await engine.runtime.image("localhost/none:1") is None


@on_both
async def test_a_pull_that_fails_says_so(engine: Engine) -> None:
    with pytest.raises(RuntimeFault, match=r"127\.0\.0\.1:1/none:1") as fault:
        await engine.runtime.pull("127.0.0.1:1/none:1", None)
    assert fault.value.reason == "pull-failed"


# ---- volumes ----------------------------------------------------------------------------------------------------------------

VOLUME = f"sshoal-{CLUSTER}-0d6c3a52-0000-4000-8000-000000000001-1"


@on_both
async def test_a_volume_is_made_once_listed_with_its_path_and_removed_for_good(engine: Engine) -> None:
    runtime, labels = engine.runtime, {**LABELS, "sshoal.dev/claim": "default/data"}
    path = await runtime.create_volume(VOLUME, labels)
    assert await runtime.create_volume(VOLUME, labels) == path, "again is no error, and the same volume"
    [info] = [item for item in await runtime.volumes() if item.name == VOLUME]
    assert (dict(info.labels), info.path) == (labels, path)
    assert path.endswith(f"/{VOLUME}/_data")
    await runtime.remove_volume(VOLUME)
    await runtime.remove_volume(VOLUME)
    assert all(item.name != VOLUME for item in await runtime.volumes())


@on_both
async def test_a_volume_that_is_not_ours_is_neither_listed_taken_nor_removed(engine: Engine) -> None:
    runtime = engine.runtime
    await engine.add_foreign_volume(VOLUME)
    assert all(item.name != VOLUME for item in await runtime.volumes())
    for attempt in (runtime.create_volume(VOLUME, LABELS), runtime.remove_volume(VOLUME)):
        with pytest.raises(RuntimeFault) as fault:
            await attempt
        assert fault.value.reason == "conflict"
    assert await engine.foreign_volume_lives(VOLUME)


@on_both
async def test_a_pod_gets_the_address_that_it_asks_for(engine: Engine) -> None:
    fixed = SUBNET.replace(".0/24", ".200")
    pod_id = await start_pod(engine, replace(pod(container(engine, "serve")), address=fixed))
    assert (await engine.runtime.pod_net(pod_id)).ip == fixed
