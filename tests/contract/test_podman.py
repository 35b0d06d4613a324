"""What only a real Podman can show: that the bodies of nodeagent.spec mean what they should, hangs, a service that restarts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from lab import image as lab_image
from nodeagent import protocol, unstick
from nodeagent.files import HostFiles
from nodeagent.podman_service import PodmanService
from nodeagent.projection import File, write
from nodeagent.runtime import Content, ImageInfo, Process, RuntimeFault
from nodeagent.spec import container_body
from tests.contract.engines import CLUSTER, LABELS, NODE, SUBNET, RealEngine, body_of, eventually, pod, start_pod
from tests.contract.private_podman import IMAGE, PrivatePodman

pytestmark = pytest.mark.podman

SLEEP = ("sleep", "1000")


def run(podman: PrivatePodman, scenario: Callable[[RealEngine], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        engine = RealEngine(podman)
        try:
            await engine.runtime.ensure_network(SUBNET, LABELS)
            return await scenario(engine)
        finally:
            engine.close()

    return asyncio.run(main())


async def launch(
    engine: RealEngine, wanted: protocol.Pod, content: Content | None = None, volumes: dict[str, str] | None = None
) -> tuple[str, Process]:
    """(id, process) of the pod's first container."""
    pod_id = await start_pod(engine, wanted)
    container = wanted.containers[0]
    image = await engine.runtime.image(container.image)
    body = container_body(
        cluster=CLUSTER,
        pod=wanted,
        container=container,
        attempt=0,
        pod_id=pod_id,
        ip=(await engine.runtime.pod_net(pod_id)).ip,
        node=NODE,
        paths={**engine.paths(), **(volumes or {})},
        content=content or Content({}, {}),
        image=image or ImageInfo(""),
        log_path=str(engine.podman.directory / f"{uuid4().hex}.log"),
        log_bytes_max=100_000,
    )
    container_id = await engine.runtime.create_container(body)
    return container_id, await engine.runtime.start_container(container_id)


async def output(engine: RealEngine, container_id: str, command: str) -> str:
    return (await engine.runtime.exec(container_id, ("sh", "-c", command), 5.0)).output.decode().strip()


def test_the_image_health_check_is_off(private_podman: PrivatePodman) -> None:
    """Podman would start a systemd timer for each container of such an image."""
    recipe = private_podman.directory / "Dockerfile"
    recipe.write_text(f"FROM {IMAGE}\nHEALTHCHECK --interval=1s CMD touch /checked\n")
    private_podman.cli("build", "--format", "docker", "--tag", "localhost/checked:1", "--file", str(recipe))

    async def scenario(engine: RealEngine) -> None:
        container_id, _ = await launch(engine, pod(protocol.Container("app", "localhost/checked:1", command=SLEEP)))
        of_image = json.loads(private_podman.cli("image", "inspect", "localhost/checked:1"))[0]
        of_container = json.loads(private_podman.cli("inspect", container_id))[0]
        assert of_image["Healthcheck"]["Test"] == ["CMD-SHELL", "touch /checked"]
        assert of_container["Config"]["Healthcheck"]["Test"] == ["NONE"]
        assert of_container["State"].get("Health", {}).get("Status", "") == ""  # Podman 5 leaves it out

    run(private_podman, scenario)


def test_environment_command_and_args_are_those_of_the_spec(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        wanted = pod(
            protocol.Container(
                "app",
                IMAGE,
                command=("sh", "-c"),
                args=("echo $(GREETING) $$(GREETING) > /tmp/said; exec sleep 1000",),
                env=(
                    protocol.EnvVar("GREETING", "hello"),
                    protocol.EnvVar("ADDRESS", field="status.podIP"),
                    protocol.EnvVar("FROM_CONFIG", config="default/settings", key="colour"),
                ),
                working_dir="/tmp",
            ),
            hostname="web",
        )
        content = Content({"default/settings": protocol.Config("h", {"colour": "blue"})}, {})
        container_id, _ = await launch(engine, wanted, content)
        assert await eventually(lambda: output(engine, container_id, "cat /tmp/said")) == "hello"
        address = await output(engine, container_id, "echo $ADDRESS")
        assert address.startswith("10.99.0.")
        assert await output(engine, container_id, "echo $FROM_CONFIG; pwd; hostname") == "blue\n/tmp\nweb"

    run(private_podman, scenario)


def test_resolv_conf_and_hosts_are_our_files_and_hosts_can_be_written(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        container_id, _ = await launch(engine, pod(protocol.Container("app", IMAGE, command=SLEEP)))
        assert await output(engine, container_id, "cat /etc/resolv.conf") == "# resolv.conf of the test"
        assert await output(engine, container_id, "echo more >> /etc/hosts; cat /etc/hosts") == (
            "# hosts of the test\nmore"
        )

    run(private_podman, scenario)


def test_security_settings_reach_the_process(private_podman: PrivatePodman) -> None:
    security = protocol.Security(
        user=1000,
        group=1001,
        groups=(2000,),
        read_only_root=True,
        escalation=False,
        add=("NET_ADMIN",),
        drop=("ALL",),
    )

    async def scenario(engine: RealEngine) -> None:
        wanted = pod(protocol.Container("app", IMAGE, command=SLEEP, security=security))
        container_id, process = await launch(engine, wanted)
        await eventually(lambda: _has_executed(process))
        status = _status(process)
        assert (status["Uid"].split()[0], status["Gid"].split()[0]) == ("1000", "1001")
        assert "2000" in status["Groups"].split()
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapBnd"], 16) == 1 << 12  # CAP_NET_ADMIN
        assert status["Seccomp"] == "2"
        assert (await engine.runtime.exec(container_id, ("touch", "/x"), 5.0)).code != 0

    run(private_podman, scenario)


async def _has_executed(process: Process) -> bool:
    """Start returns while the runtime's own code still is the process: it takes on its last restrictions just before exec."""
    return Path(f"/proc/{process.pid}/comm").read_text().strip() in ("sleep", "busybox")


def _status(process: Process) -> dict[str, str]:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_seccomp_can_be_unconfined(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        security = protocol.Security(seccomp="Unconfined")
        _, process = await launch(engine, pod(protocol.Container("app", IMAGE, command=SLEEP, security=security)))
        await eventually(lambda: _has_executed(process))
        assert _status(process)["Seccomp"] == "0"

    run(private_podman, scenario)


def test_resources_become_cgroup_settings(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        container = protocol.Container(
            "app",
            IMAGE,
            command=SLEEP,
            cpu_request_m=250,
            cpu_limit_m=500,
            memory_request_bytes=32 << 20,
            memory_limit_bytes=64 << 20,
        )
        container_id, process = await launch(engine, pod(container))
        config = json.loads(private_podman.cli("inspect", container_id))[0]["HostConfig"]
        assert (config["CpuShares"], config["CpuQuota"], config["CpuPeriod"]) == (256, 50_000, 100_000)
        assert (config["Memory"], config["MemorySwap"]) == (64 << 20, 64 << 20)
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "999"

    run(private_podman, scenario)


def test_volumes_are_mounted_with_their_access_and_sub_paths(private_podman: PrivatePodman) -> None:
    volume = private_podman.directory / f"volume-{uuid4().hex}"
    (volume / "part").mkdir(parents=True)
    (volume / "part" / "file").write_text("inside")

    async def scenario(engine: RealEngine) -> None:
        mounts = (
            protocol.Mount("data", "/data"),
            protocol.Mount("data", "/readable", read_only=True),
            protocol.Mount("data", "/part", sub_path="part"),
        )
        wanted = pod(
            protocol.Container("app", IMAGE, command=SLEEP, mounts=mounts), volumes=(protocol.Volume("data", "empty"),)
        )
        container_id, _ = await launch(engine, wanted, volumes={"data": str(volume), "data/part": str(volume / "part")})
        assert await output(engine, container_id, "cat /part/file") == "inside"
        assert (await engine.runtime.exec(container_id, ("touch", "/data/new"), 5.0)).code == 0
        assert (volume / "new").exists()
        assert (await engine.runtime.exec(container_id, ("touch", "/readable/new2"), 5.0)).code != 0

    run(private_podman, scenario)


def test_a_config_map_is_read_only_and_still_shows_updates(private_podman: PrivatePodman) -> None:
    volume = private_podman.directory / f"volume-{uuid4().hex}"
    write(volume, {"key": File(b"before", 0o644)}, None)

    async def scenario(engine: RealEngine) -> None:
        container = protocol.Container("app", IMAGE, command=SLEEP, mounts=(protocol.Mount("conf", "/conf"),))
        wanted = pod(container, volumes=(protocol.Volume("conf", "files"),))
        container_id, _ = await launch(engine, wanted, volumes={"conf": str(volume)})
        assert await output(engine, container_id, "cat /conf/key; echo x 2>/dev/null > /conf/key || echo refused") == (
            "beforerefused"
        )
        write(volume, {"key": File(b"after", 0o644)}, None)
        assert await output(engine, container_id, "cat /conf/key") == "after"

    run(private_podman, scenario)


def test_parts_of_volumes_and_last_words_work_as_files_makes_them(private_podman: PrivatePodman) -> None:
    files = HostFiles(str(private_podman.directory / "state"), str(private_podman.directory / "run"))
    container = protocol.Container(
        "app", IMAGE, command=SLEEP, mounts=(protocol.Mount("data", "/part", sub_path="a/b"),)
    )
    wanted = pod(container, volumes=(protocol.Volume("data", "empty"),))
    directory = private_podman.directory / "volume-of-parts"
    (directory / "a/b").mkdir(parents=True)
    # The service has a mount namespace of its own here, so that the part is given as the directory itself.
    own = asyncio.run(files.prepare_container(replace(wanted, volumes=()), replace(container, mounts=()), 0, {}))
    volumes = {**own, "data": str(directory), "data/a/b": str(directory / "a/b")}

    async def scenario(engine: RealEngine) -> None:
        container_id, _ = await launch(engine, wanted, volumes=volumes)
        await output(engine, container_id, "touch /part/made; echo -n out of cheese > /dev/termination-log")
        assert (directory / "a/b/made").exists()
        assert await files.termination_message(wanted.uid, "app", 0) == "out of cheese"

    run(private_podman, scenario)


def test_the_stop_signal_of_an_image_is_known(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        container_id, _ = await launch(engine, pod(protocol.Container("app", IMAGE, command=SLEEP)))
        name = "localhost/stops-oddly:1"
        await asyncio.to_thread(private_podman.cli, "commit", "--change", "STOPSIGNAL SIGQUIT", container_id, name)
        image = await engine.runtime.image(name)
        assert image is not None and image.stop_signal == "SIGQUIT"

    run(private_podman, scenario)


def test_a_pod_on_the_host_network_has_the_hosts_interfaces_and_no_address(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        wanted = pod(protocol.Container("app", IMAGE, command=SLEEP), host_network=True)
        pod_id = await start_pod(engine, wanted)
        net = await engine.runtime.pod_net(pod_id)
        assert net.ip == "" and net.process is not None
        of_host = subprocess.run(
            [*private_podman.enter(), "readlink", "/proc/self/ns/net"], capture_output=True, check=True, timeout=10
        )
        assert str(Path(f"/proc/{net.process.pid}/ns/net").readlink()).encode() == of_host.stdout.strip()

    run(private_podman, scenario)


def test_containers_of_a_pod_share_network_and_ipc_and_by_choice_processes(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        for share_pid in (False, True):
            wanted = pod(protocol.Container("app", IMAGE, command=SLEEP), share_pid=share_pid)
            container_id, process = await launch(engine, wanted)
            info = next(item for item in (await engine.runtime.list()).containers if item.id == container_id)
            infra = (await engine.runtime.pod_net(info.pod_id)).process
            assert infra is not None
            same = {
                kind: Path(f"/proc/{process.pid}/ns/{kind}").readlink()
                == Path(f"/proc/{infra.pid}/ns/{kind}").readlink()
                for kind in ("net", "ipc", "uts", "pid", "mnt")
            }
            assert same == {"net": True, "ipc": True, "uts": True, "pid": share_pid, "mnt": False}

    run(private_podman, scenario)


def test_logs_are_written_to_our_path_as_k8s_file(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        command = ("sh", "-c", "echo out; echo err >&2; exec sleep 1000")
        container_id, _ = await launch(engine, pod(protocol.Container("app", IMAGE, command=command)))
        path = Path(json.loads(private_podman.cli("inspect", container_id))[0]["HostConfig"]["LogConfig"]["Path"])

        async def both_lines() -> bool:
            lines = [line.split(" ", 3)[1:] for line in path.read_text().splitlines()]
            return sorted(lines) == [["stderr", "F", "err"], ["stdout", "F", "out"]]

        assert path.parent == private_podman.directory
        await eventually(both_lines)

    run(private_podman, scenario)


def test_a_killed_exec_leaves_nothing_running(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        container_id, _ = await launch(engine, pod(protocol.Container("app", IMAGE, command=SLEEP)))
        session = await engine.runtime.exec_stream(
            container_id, ("sh", "-c", "sleep 88 & sleep 88"), tty=True, stdin=True
        )
        await session.resize(33, 111)
        await eventually(lambda: _count(engine, container_id, "sleep 88", 2))
        await session.close()
        await eventually(lambda: _count(engine, container_id, "sleep 88", 0))

    run(private_podman, scenario)


@pytest.mark.parametrize("command", ["rm container", "pod rm pod", "kill infra", "stop container", "pod stop pod"])
def test_what_a_person_takes_away_by_hand_is_told_by_its_process(private_podman: PrivatePodman, command: str) -> None:
    async def scenario(engine: RealEngine) -> None:
        container_id, process = await launch(engine, pod(protocol.Container("app", IMAGE, command=SLEEP)))
        listed = next(one for one in (await engine.runtime.list()).containers if one.id == container_id)
        net = await engine.runtime.pod_net(listed.pod_id)
        infra = next(p.infra_id for p in (await engine.runtime.list()).pods if p.id == listed.pod_id)
        assert net.process is not None
        subject, words = {
            "rm container": (process, ("rm", "--force", "--time", "0", container_id)),
            "pod rm pod": (net.process, ("pod", "rm", "--force", "--time", "0", listed.pod_id)),
            "kill infra": (net.process, ("kill", "--signal", "KILL", infra)),
            "stop container": (process, ("stop", "--time", "0", container_id)),
            "pod stop pod": (net.process, ("pod", "stop", "--time", "0", listed.pod_id)),
        }[command]
        told = asyncio.ensure_future(engine.runtime.wait_exit(subject))
        await asyncio.sleep(0)
        assert not told.done()
        await asyncio.to_thread(private_podman.cli, *words)
        await asyncio.wait_for(told, 10)
        assert not engine.runtime.is_alive(subject)

    run(private_podman, scenario)


def test_execs_leave_no_process_behind_for_long(private_podman: PrivatePodman) -> None:
    """Podman's own setting keeps two processes of each exec for five minutes."""

    async def scenario(engine: RealEngine) -> None:
        container_id, _ = await launch(engine, pod(protocol.Container("app", IMAGE, command=SLEEP)))
        for _ in range(10):
            assert (await engine.runtime.exec(container_id, ("sh", "-c", "exit 7"), 10.0)).code == 7
        assert _exec_processes(container_id)  # it looks for the right ones

        async def gone() -> bool:
            return not _exec_processes(container_id)

        await eventually(gone, timeout_s=30)

    run(private_podman, scenario)


def _exec_processes(container_id: str) -> list[int]:
    """Those that belong to execs in a container: conmon is told the exec's own id by --exec-attach or --exec-process-spec."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            if container_id in words and any(word.startswith("--exec") for word in words):
                found.append(int(entry.name))
    return found


async def _count(engine: RealEngine, container_id: str, needle: str, wanted: int) -> bool:
    lines = (await output(engine, container_id, "ps")).splitlines()
    return sum(line.strip().endswith(needle) for line in lines) == wanted


def test_a_terminal_has_the_size_it_was_given(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        container_id, _ = await launch(engine, pod(protocol.Container("app", IMAGE, command=SLEEP)))
        session = await engine.runtime.exec_stream(container_id, ("sh",), tty=True, stdin=True)
        await session.write(b"test -t 0 && echo is-a-$((1))-terminal; exit 5\n")
        received = b"".join([chunk async for _, chunk in session])
        assert b"is-a-1-terminal" in received
        assert await session.exit_code() == 5
        await session.close()

    run(private_podman, scenario)


# ---- the service ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_after_the_service_was_restarted_the_same_runtime_goes_on(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        container_id, process = await launch(engine, pod(protocol.Container("app", IMAGE, command=SLEEP)))
        private_podman.stop_service()
        with pytest.raises(RuntimeFault) as fault:
            await engine.runtime.list()
        assert fault.value.reason == "unavailable"
        private_podman.start_service()
        found = {item.id: item.process for item in (await engine.runtime.list()).containers}
        assert found[container_id] == process

    run(private_podman, scenario)
    gc.collect()  # podman-py leaves a socket that could not connect to the collector, which would warn in some later test


def test_a_frozen_service_costs_a_call_its_deadline_and_nothing_more(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        service = PodmanService(str(private_podman.socket))
        private_podman.signal_service(signal.SIGSTOP)
        try:
            with pytest.raises(RuntimeFault) as fault:
                await service.get("/info", timeout_s=0.3)
        finally:
            private_podman.signal_service(signal.SIGCONT)
        assert fault.value.reason == "timeout"
        assert (await service.get("/info", timeout_s=5.0)).status == 200
        service.close()

    run(private_podman, scenario)


@pytest.fixture
def netavark_that_hangs(private_podman: PrivatePodman) -> Iterator[Path]:
    """While the file it gives exists, taking a pod's network down never ends: its cleanup then keeps the container's lock.

    With anything in the file it is not idle meanwhile.
    """
    real, script = Path("/usr/lib/podman/netavark"), private_podman.directory / "netavark"
    hang, copy = private_podman.directory / "hang", private_podman.directory / "netavark.real"
    shutil.copy2(real, copy)
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *teardown*)\n'
        f"  while [ -s {hang} ]; do :; done\n  [ ! -e {hang} ] || exec sleep 1000 ;;\n"
        f'esac\nexec {copy} "$@"\n'
    )
    script.chmod(0o755)
    subprocess.run([*private_podman.enter(), "mount", "--bind", str(script), str(real)], check=True)
    yield hang
    hang.unlink(missing_ok=True)
    # Lazily: the shell that was killed in the middle of the script may not have let go of it yet.
    subprocess.run([*private_podman.enter(), "umount", "--lazy", str(real)], check=True)


needs_netavark = pytest.mark.skipif(
    not Path("/usr/lib/podman/netavark").exists(), reason="this Podman has its network helper elsewhere"
)


async def hangs(service: PodmanService) -> bool:
    try:
        await service.get("/containers/json", timeout_s=1.0, all="true")
    except RuntimeFault as fault:
        return fault.reason == "timeout"
    return False


async def made_to_hang(podman: PrivatePodman, engine: RealEngine, service: PodmanService) -> str:
    """The id of a pod whose network is taken down and taken down, while Podman's service answers nothing."""
    pod_id = await start_pod(engine, pod(protocol.Container("app", IMAGE, command=SLEEP)))
    infra_id = next(item.infra_id for item in (await engine.runtime.list()).pods if item.id == pod_id)
    os.kill(podman.pids(infra_id)[1], signal.SIGKILL)
    await eventually(lambda: hangs(service))
    return pod_id


@needs_netavark
def test_a_cleanup_of_ours_that_keeps_a_lock_is_killed_and_podman_answers_again(
    private_podman: PrivatePodman, netavark_that_hangs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unstick, "STUCK_S", 1.0)

    async def scenario(engine: RealEngine) -> None:
        bystander, its_process = await launch(engine, pod(protocol.Container("app", IMAGE, command=SLEEP)))
        service = PodmanService(str(private_podman.socket))
        netavark_that_hangs.touch()
        pod_id = await made_to_hang(private_podman, engine, service)
        assert await engine.runtime.unstick({"another-container"}, 1.0) == ()
        assert await hangs(service), "what is not ours is left alone"

        async def ended() -> tuple[str, ...]:
            return await engine.runtime.unstick({pod_id}, 1.0)

        (told,) = await eventually(ended)
        assert "podman container cleanup" in told
        assert (await service.get("/containers/json", timeout_s=10.0, all="true")).status == 200
        assert engine.runtime.is_alive(its_process) and bystander
        service.close()

    run(private_podman, scenario)


@needs_netavark
def test_a_cleanup_that_is_at_work_is_waited_for_and_so_is_the_service(
    private_podman: PrivatePodman, netavark_that_hangs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is short of processor time: the bridge and the rules of a network whose teardown is killed stay for good."""
    monkeypatch.setattr(unstick, "STUCK_S", 0.5)

    async def scenario(engine: RealEngine) -> None:
        service = PodmanService(str(private_podman.socket))
        netavark_that_hangs.write_text("at work")
        pod_id = await made_to_hang(private_podman, engine, service)
        assert await engine.runtime.unstick({pod_id}, unstick.SERVICE_HANGS_S) == ()
        assert await hangs(service), "neither it nor the service was ended"
        monkeypatch.setattr(unstick, "WORKING_MAX_S", 0.5)
        (told,) = await engine.runtime.unstick({pod_id}, unstick.SERVICE_HANGS_S)
        assert "podman container cleanup" in told
        assert (await service.get("/containers/json", timeout_s=10.0, all="true")).status == 200
        service.close()

    run(private_podman, scenario)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_service_that_is_silent_for_long_is_killed_and_no_pod_with_it(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        _, process = await launch(engine, pod(protocol.Container("app", IMAGE, command=SLEEP)))
        private_podman.signal_service(signal.SIGSTOP)
        assert await engine.runtime.unstick((), unstick.SERVICE_HANGS_S - 1) == ()
        (told,) = await engine.runtime.unstick((), unstick.SERVICE_HANGS_S)
        assert "Podman's service" in told
        private_podman.restart_killed_service()
        assert engine.runtime.is_alive(process)
        assert process in {item.process for item in (await engine.runtime.list()).containers}

    run(private_podman, scenario)
    gc.collect()


@pytest.mark.parametrize("loss", ["record", "content"])
def test_an_image_whose_layers_are_lost_is_told_as_such_and_can_be_had_anew(
    private_podman: PrivatePodman, loss: str
) -> None:
    """What a power cut leaves now and then (containers/podman#8437): in its records or on its disk a layer is missing."""
    tag = f"localhost/damaged-{loss}:1"
    archive = lab_image.build(tag, busybox=Path("/bin/busybox"))
    recipe = private_podman.directory / f"Dockerfile.{loss}"
    recipe.write_text(f"FROM {IMAGE}\nRUN echo {loss} >/made-for\n")
    private_podman.cli("build", "--quiet", "--tag", tag, "--file", str(recipe))
    storage = private_podman.directory / "root"
    held = json.loads((storage / "overlay-images/images.json").read_text())
    (top,) = [entry["layer"] for entry in held if tag in entry.get("names", ())]
    private_podman.stop_service()
    if loss == "record":
        layers = storage / "overlay-layers/layers.json"
        layers.write_text(json.dumps([one for one in json.loads(layers.read_text()) if one["id"] != top]))
    else:
        shutil.rmtree(storage / "overlay" / top)
    private_podman.start_service()

    async def scenario(engine: RealEngine) -> None:
        with pytest.raises(RuntimeFault) as looked:
            await engine.runtime.image(tag)
        assert looked.value.reason == "storage-corrupt"
        pod_id = await start_pod(engine, wanted := pod(protocol.Container("app", IMAGE, command=SLEEP)))
        body = {**await body_of(engine, wanted, pod_id), "image": tag}
        with pytest.raises(RuntimeFault) as made:
            await engine.runtime.create_container(body)
        assert made.value.reason == "storage-corrupt"
        await engine.runtime.remove_image(tag)
        assert await engine.runtime.image(tag) is None
        private_podman.cli("load", "--input", str(archive))
        assert await engine.runtime.create_container(body)

    run(private_podman, scenario)


def test_an_image_that_containers_use_is_not_removed(private_podman: PrivatePodman) -> None:
    async def scenario(engine: RealEngine) -> None:
        _, process = await launch(engine, pod(protocol.Container("app", IMAGE, command=SLEEP)))
        with pytest.raises(RuntimeFault) as fault:
            await engine.runtime.remove_image(IMAGE)
        assert fault.value.reason in ("conflict", "failed")
        assert engine.runtime.is_alive(process)
        assert await engine.runtime.image(IMAGE) is not None

    run(private_podman, scenario)
