"""nodeagent.runtime.Runtime over Podman: what the agent asks of a container engine, for real.

In: bodies made by spec, ids from listings. Out: runtime's dataclasses, RuntimeFaults. Podman's word alone is not taken for a container
being alive (process.py looks), for a removal having worked (it is verified and tried again), or for a pull having succeeded (the image is
looked up). Only objects with our labels, or with our names where storage has no labels, are ever removed.
"""

import asyncio
import base64
import ipaddress
import json
import signal
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from typing import Any, Callable, Optional
from urllib.parse import quote

from nodeagent import podman_exec, process, unstick
from nodeagent.podman_service import PodmanService, fault
from nodeagent.runtime import (
    LABEL_CLUSTER,
    NETWORK_NAME,
    ContainerInfo,
    ExecResult,
    ExecSession,
    Exit,
    ImageInfo,
    Listing,
    PodInfo,
    PodNet,
    Process,
    RegistryAuth,
    RuntimeFault,
    RuntimeInfo,
    VolumeInfo,
)
from nodeagent.spec import NAME_PREFIX

LOOK_S = 10.0  # deadlines: of calls that read,
CHANGE_S = 30.0  # create, start
REMOVE_S = 30.0  # one attempt to remove
PULL_SILENCE_S = 60.0  # a pull that makes no progress is given up
PULL_S = 3600.0
LOAD_S = 600.0
RESOLVE_S = 6.0  # to ask a registry what a tag stands for
VOLUME_S = 600.0  # removing one with many files
CREATES_MAX = 3  # in parallel: more makes Podman slower
ATTEMPTS_MAX = 4  # to create over a leftover, to remove
RETRY_S = 0.1  # doubled each time
LEARNING_S = 1.0  # how long Podman may take to learn of an exit
UNKNOWN_CODE = -1  # what newer Podmans record when conmon was killed
PODS_ASKED_EVERY = 10  # listings
LISTED = json.dumps({"label": [LABEL_CLUSTER]})


class PodmanRuntime:
    """implements runtime.Runtime.

    Args:
        socket_path: unix socket of `podman system service`. Whoever starts that service may restart it at any time.
    """

    def __init__(self, socket_path: str) -> None:
        self._service = PodmanService(socket_path)
        self._creating = asyncio.Semaphore(CREATES_MAX)
        self._lists = 0
        self._layers: dict[str, tuple[str, ...]] = {}  # by id of the image

    def close(self) -> None:
        """Drops idle connections to Podman."""
        self._service.close()

    # ---- looking --------------------------------------------------------------------------------------------------------

    async def info(self) -> RuntimeInfo:
        data = (await self._service.get("/info", timeout_s=LOOK_S)).data
        host = data["host"]
        return RuntimeInfo(
            version=str(data["version"]["Version"]),
            cgroups=str(host.get("cgroupVersion", "")),
            rootless=bool(host.get("security", {}).get("rootless")),
            graph_root=str(data["store"]["graphRoot"]),
            controllers=tuple(str(name) for name in host.get("cgroupControllers") or ()),
        )

    async def list(self) -> Listing:
        """One request: pods are read off their infra containers, which carry the same labels.

        Podman's own list of pods costs its service as much again, so it is asked only when that does not account for every container,
        and now and then for pods that were left without an infra container.
        """
        answer = await self._service.get("/containers/json", timeout_s=LOOK_S, all="true", external="true")
        ours = [item for item in answer.data or () if _is_ours(item)]
        pods = {item.id: item for item in map(_pod_of_infra, ours) if item is not None}
        if self._lists % PODS_ASKED_EVERY == 0 or not pods.keys() >= {item["Pod"] for item in ours if item.get("Pod")}:
            listed = await self._service.get("/pods/json", timeout_s=LOOK_S, filters=LISTED)
            pods = {item.id: item for item in map(_pod_info, listed.data or ())}
        self._lists += 1
        return Listing(pods=tuple(pods.values()), containers=tuple(_container_info(item) for item in ours))

    async def pod_net(self, pod_id: str) -> PodNet:
        return await self._net(await self._infra_id(pod_id))

    def is_alive(self, process_: Process) -> bool:
        return process.is_alive(process_)

    async def wait_exit(self, process_: Process) -> None:
        await process.wait_exit(process_)

    async def exit_of(self, container_id: str) -> Exit:
        waited_s, pause_s, is_last = 0.0, 0.01, False
        while True:
            state = (await self._inspect(container_id))["State"]
            oom_killed = bool(state.get("OOMKilled"))
            if state["Status"] in ("exited", "stopped"):
                return Exit(_known_code(state), oom_killed)
            if waited_s >= LEARNING_S or is_last:
                return Exit(None, oom_killed)
            is_last = process.find(int(state.get("ConmonPid") or 0)) is None
            if is_last:
                continue  # nobody is left who could tell Podman; conmon may have, since it was asked
            await asyncio.sleep(pause_s)
            waited_s, pause_s = waited_s + pause_s, pause_s * 2

    # ---- network and pods -----------------------------------------------------------------------------------------------

    async def ensure_network(self, subnet: str, labels: Mapping[str, str]) -> None:
        found = await self._service.get(f"/networks/{NETWORK_NAME}/json", timeout_s=LOOK_S, expect=(404,))
        if found.status < 400:
            network = found.data[0] if isinstance(found.data, list) else found.data
            if LABEL_CLUSTER not in (network.get("labels") or {}):
                raise RuntimeFault("conflict", f"a network {NETWORK_NAME} exists and is not ours; remove or rename it")
            present = [str(item["subnet"]) for item in network.get("subnets") or ()]
            if present == [subnet]:
                return
            await self._replace_network(subnet, present)
        await self._service.call("POST", "/networks/create", body=_network(subnet, labels), timeout_s=CHANGE_S)

    async def remove_network(self) -> None:
        found = await self._service.get(f"/networks/{NETWORK_NAME}/json", timeout_s=LOOK_S, expect=(404,))
        if found.status >= 400:
            return
        network = found.data[0] if isinstance(found.data, list) else found.data
        if LABEL_CLUSTER in (network.get("labels") or {}):
            await self._service.call("DELETE", f"/networks/{NETWORK_NAME}", timeout_s=REMOVE_S, expect=(404,))

    async def _replace_network(self, subnet: str, present: Sequence[str]) -> None:
        try:
            await self._service.call("DELETE", f"/networks/{NETWORK_NAME}", timeout_s=REMOVE_S, expect=(404,))
        except RuntimeFault as error:
            message = f"network {NETWORK_NAME} has {', '.join(present)}, wanted {subnet}: {error}"
            raise RuntimeFault("conflict", message) from None

    async def create_pod(self, body: Mapping[str, Any]) -> str:
        async with self._creating:
            return await self._create("/pods/create", body, self._remove_pod_named)

    async def _remove_pod_named(self, body: Mapping[str, Any]) -> None:
        pod = await self._service.get(f"/pods/{body['name']}/json", timeout_s=LOOK_S, expect=(404,))
        if pod.status < 400:
            _check_same_owner(body, pod.data.get("Labels"))
            await self.remove_pod(str(pod.data["Id"]))

    async def start_pod(self, pod_id: str) -> PodNet:
        infra_id = await self._infra_id(pod_id)
        await self._service.call("POST", f"/containers/{infra_id}/start", timeout_s=CHANGE_S)
        net = await self._net(infra_id)
        if net.process is None:
            raise RuntimeFault("failed", "Podman says the pod's infra container runs, but its process is gone")
        return net

    async def remove_pod(self, pod_id: str) -> None:
        pod = await self._service.get(f"/pods/{pod_id}/json", timeout_s=LOOK_S, expect=(404,))
        if pod.status >= 400:
            return
        _check_ours(pod.data.get("Labels"), pod_id)
        members = await self._service.get(
            "/containers/json", timeout_s=LOOK_S, all="true", filters=json.dumps({"pod": [pod_id]})
        )
        processes = [found for item in members.data or () for found in _own_process(item["Id"], item.get("Pid"))]
        await self._remove("pod", f"/pods/{pod_id}", processes)

    async def _infra_id(self, pod_id: str) -> str:
        pod = (await self._service.get(f"/pods/{pod_id}/json", timeout_s=LOOK_S)).data
        infra_id = str(pod.get("InfraContainerID") or "")
        if not infra_id:
            raise RuntimeFault("failed", f"pod {pod_id[:12]} has no infra container")
        return infra_id

    async def _net(self, infra_id: str) -> PodNet:
        infra = await self._inspect(infra_id)
        networks = infra.get("NetworkSettings", {}).get("Networks") or {}
        ip = str((networks.get(NETWORK_NAME) or {}).get("IPAddress") or "")
        return PodNet(ip, process.find(int(infra["State"].get("Pid") or 0)))

    # ---- volumes --------------------------------------------------------------------------------------------------------

    async def volumes(self) -> tuple[VolumeInfo, ...]:
        answer = await self._service.get("/volumes/json", timeout_s=LOOK_S, filters=LISTED)
        return tuple(_volume(item) for item in answer.data or () if LABEL_CLUSTER in (item.get("Labels") or {}))

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> str:
        found = await self._service.get(f"/volumes/{name}/json", timeout_s=LOOK_S, expect=(404,))
        if found.status >= 400:
            body = {"Name": name, "Label": dict(labels)}
            found = await self._service.call("POST", "/volumes/create", body=body, timeout_s=CHANGE_S)
        _check_same_owner({"name": name, "labels": labels}, found.data.get("Labels"))
        return _volume(found.data).path

    async def remove_volume(self, name: str) -> None:
        found = await self._service.get(f"/volumes/{name}/json", timeout_s=LOOK_S, expect=(404,))
        if found.status >= 400:
            return
        _check_ours(found.data.get("Labels"), name)
        await self._service.call("DELETE", f"/volumes/{name}", timeout_s=VOLUME_S, expect=(404,))
        left = await self._service.get(f"/volumes/{name}/exists", timeout_s=LOOK_S, expect=(404,))
        if left.status != 404:
            raise RuntimeFault("failed", f"volume {name} could not be removed: it is still there")

    # ---- containers -----------------------------------------------------------------------------------------------------

    async def create_container(self, body: Mapping[str, Any]) -> str:
        async with self._creating:
            return await self._create("/containers/create", body, self._remove_container_named)

    async def _remove_container_named(self, body: Mapping[str, Any]) -> None:
        name = str(body["name"])
        found = await self._service.get(f"/containers/{name}/json", timeout_s=LOOK_S, expect=(404,))
        if found.status < 400:
            _check_same_owner(body, found.data["Config"].get("Labels"))
        elif not name.startswith(NAME_PREFIX):  # in storage only: no labels tell whose it is, the name does
            raise RuntimeFault("conflict", f"the name {name} is taken by something that is not ours")
        await self._remove("container", f"/containers/{name}", _process_of(found.data))

    async def _create(
        self, path: str, body: Mapping[str, Any], remove_leftover: Callable[[Mapping[str, Any]], Awaitable[None]]
    ) -> str:
        for _ in range(ATTEMPTS_MAX - 1):
            try:
                return str((await self._service.call("POST", path, body=body, timeout_s=CHANGE_S)).data["Id"])
            except RuntimeFault as error:
                if error.reason != "conflict":
                    raise
            await remove_leftover(body)
        return str((await self._service.call("POST", path, body=body, timeout_s=CHANGE_S)).data["Id"])

    async def start_container(self, container_id: str) -> Process:
        """A process that has ended already is told by a Process that is not alive; exit_of says how it ended."""
        answer = await self._service.call("POST", f"/containers/{container_id}/start", timeout_s=CHANGE_S)
        try:
            state = (await self._inspect(container_id))["State"]
        except RuntimeFault as error:
            if error.reason == "not-found":
                raise
            # Not "failed": that would say that it does not run.
            message = f"Podman has started it, but does not tell its process: {error}"
            raise RuntimeFault("unavailable", message) from None
        pid = int(state.get("Pid") or 0)
        found = process.find(pid)
        if found is None and answer.status == 304:
            raise RuntimeFault("failed", "Podman says running and starts nothing, but the process is gone")
        return found or Process(pid, 0)

    async def signal(self, container_id: str, process_: Process, name: str) -> None:
        try:
            process.send_signal(process_, _signal_number(name))
        except PermissionError:  # rootless: the process belongs to another user of the container
            if process.is_alive(process_):
                await self._service.call(
                    "POST",
                    f"/containers/{container_id}/kill",
                    params={"signal": name},
                    timeout_s=LOOK_S,
                    expect=(404, 409, 500),
                )

    async def remove_container(self, container_id: str) -> None:
        found = await self._service.get(f"/containers/{container_id}/json", timeout_s=LOOK_S, expect=(404,))
        if found.status < 400:
            _check_ours(found.data["Config"].get("Labels"), container_id)
        await self._remove("container", f"/containers/{container_id}", _process_of(found.data))

    async def _remove(self, kind: str, path: str, processes: Sequence[Process]) -> None:
        """Removes by force and verifies; Podman's first attempt fails after its conmon was killed, and now and then on a busy mount."""
        last: Optional[RuntimeFault] = None
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                await asyncio.sleep(RETRY_S * 2 ** (attempt - 1))
            try:
                params = {"force": "true", "timeout": 0, "v": "true"}
                await self._service.call("DELETE", path, params=params, timeout_s=REMOVE_S, expect=(404,))
            except RuntimeFault as error:
                if error.reason in ("timeout", "unavailable"):
                    raise
                last = error
            alive = [item for item in processes if process.is_alive(item)]
            for item in alive:
                _kill(item)
            left = await self._service.get(f"{path}/exists", timeout_s=LOOK_S, expect=(404,))
            if left.status == 404 and not alive and (last is None or last.reason == "not-found"):
                return
            if left.status == 404:
                last = None  # once more, to see that nothing is left
        pids = ", ".join(str(item.pid) for item in processes if process.is_alive(item))
        still = f"process {pids} does not end" if pids else str(last or "it is still there")
        raise RuntimeFault("failed", f"{kind} {path.rsplit('/', 1)[-1][:12]} could not be removed: {still}")

    async def _inspect(self, container_id: str) -> dict[str, Any]:
        data: dict[str, Any] = (await self._service.get(f"/containers/{container_id}/json", timeout_s=LOOK_S)).data
        return data

    # ---- inside ---------------------------------------------------------------------------------------------------------

    async def exec(self, container_id: str, command: tuple[str, ...], timeout_s: float) -> ExecResult:
        return await podman_exec.run(self._service, container_id, command, timeout_s)

    async def exec_stream(self, container_id: str, command: tuple[str, ...], tty: bool, stdin: bool) -> ExecSession:
        return await podman_exec.start(self._service, container_id, command, tty=tty, stdin=stdin)

    async def connect(self, process_: Process, port: int, timeout_s: float) -> Any:
        return await process.connect_inside(process_, port, timeout_s)

    # ---- images ---------------------------------------------------------------------------------------------------------

    async def images(self) -> tuple[ImageInfo, ...]:
        return tuple(_image(item) for item in (await self._service.get("/images/json", timeout_s=LOOK_S)).data or ())

    async def image(self, reference: str) -> Optional[ImageInfo]:
        path = f"/images/{quote(reference, safe='/:@')}/json"
        answer = await self._service.get(path, timeout_s=LOOK_S, expect=(404, 500))
        if answer.status == 500:  # Podman trips over lost layers by a nil pointer, and tells of nothing else
            said = " ".join(str((answer.data or {}).get("message", "")).split())
            lost = "nil pointer" in said or "layer not known" in said
            raise RuntimeFault("storage-corrupt" if lost else "failed", f"{reference}: {said[:300]}")
        return _image(answer.data) if answer.status < 400 else None

    async def remove_image(self, reference: str) -> None:
        path = f"/images/{quote(reference, safe='/:@')}"
        await self._service.call("DELETE", path, timeout_s=REMOVE_S, expect=(404,))

    async def pull(self, reference: str, auth: Optional[RegistryAuth]) -> str:
        def look(line: Mapping[str, Any]) -> None:
            if line.get("error"):  # Podman answers 200 and tells of the failure in the stream
                raise fault(reference, 0, str(line["error"]))

        headers = {} if auth is None else {"X-Registry-Auth": _auth_header(auth)}
        try:
            await self._service.post_lines(
                "/images/create",
                each_line=look,
                params={"fromImage": reference},
                headers=headers,
                silence_s=PULL_SILENCE_S,
                timeout_s=PULL_S,
            )
        except RuntimeFault as error:
            if error.reason == "timeout":
                message = f"{reference}: no progress for {PULL_SILENCE_S:g} s"
                raise RuntimeFault("pull-failed", message) from None
            if error.reason in ("unavailable", "no-space", "pull-failed"):
                raise
            raise RuntimeFault("pull-failed", f"{reference}: {error}") from None
        image = await self.image(reference)
        if image is None:
            raise RuntimeFault("pull-failed", f"{reference}: Podman reported no failure, but the image is not here")
        return image.id

    async def resolve(self, reference: str, auth: Optional[RegistryAuth]) -> str:
        """Podman has no call that tells a digest without pulling."""
        from nodeagent import registry  # most agents never need it

        try:
            return await registry.ask(reference, auth, RESOLVE_S)
        except registry.RegistryTrouble as trouble:
            raise RuntimeFault("pull-failed", str(trouble)) from None

    async def layers(self) -> frozenset[str]:
        """Images never change, so each is asked for its layers once."""
        listed = (await self._service.get("/images/json", timeout_s=LOOK_S)).data or ()
        known = {}
        for image_id in (str(item["Id"]) for item in listed):
            known[image_id] = self._layers.get(image_id)
            if known[image_id] is None:
                answer = await self._service.get(f"/images/{image_id}/json", timeout_s=LOOK_S, expect=(404, 500))
                # 500: its layers are lost. A push is what mends that, and must not fail by it.
                rootfs = (answer.data or {}).get("RootFS") or {}
                known[image_id] = tuple(rootfs.get("Layers") or ()) if answer.status < 400 else None
        self._layers = {image_id: layers for image_id, layers in known.items() if layers is not None}
        return frozenset(layer for layers in self._layers.values() for layer in layers)

    async def load_image(self, archive: Iterable[bytes]) -> None:
        await self._service.upload("/images/load", archive, timeout_s=LOAD_S)

    async def tag(self, image_id: str, name: str) -> None:
        repository, _, tag = name.rpartition(":")
        await self._service.call(
            "POST", f"/images/{image_id}/tag", params={"repo": repository, "tag": tag}, timeout_s=LOOK_S
        )

    # ---- trouble --------------------------------------------------------------------------------------------------------

    async def unstick(self, ids: Collection[str], hanging_s: float) -> tuple[str, ...]:
        return await asyncio.to_thread(unstick.unstick, self._service.socket_path, ids, hanging_s)


# ---- Podman's answers read ------------------------------------------------------------------------------------------------


def _pod_info(item: Mapping[str, Any]) -> PodInfo:
    return PodInfo(str(item["Id"]), str(item["Name"]), dict(item.get("Labels") or {}), str(item.get("InfraId") or ""))


def _pod_of_infra(item: Mapping[str, Any]) -> Optional[PodInfo]:
    labels = item.get("Labels") or {}
    if not item.get("IsInfra") or LABEL_CLUSTER not in labels:
        return None
    return PodInfo(str(item["Pod"]), str(item["PodName"]), dict(labels), str(item["Id"]))


def _volume(item: Mapping[str, Any]) -> VolumeInfo:
    return VolumeInfo(str(item["Name"]), dict(item.get("Labels") or {}), str(item.get("Mountpoint") or ""))


def _is_ours(item: Mapping[str, Any]) -> bool:
    """By label; by name where there are none: in storage only, and infra containers of Podmans that don't label them."""
    if item.get("State") == "storage":
        return any(str(name).startswith(NAME_PREFIX) for name in item.get("Names") or ())
    if item.get("IsInfra") and str(item.get("PodName") or "").startswith(NAME_PREFIX):
        return True
    return LABEL_CLUSTER in (item.get("Labels") or {})


def _container_info(item: Mapping[str, Any]) -> ContainerInfo:
    state = "external" if item["State"] == "storage" else str(item["State"])
    started_s, finished_s = max(0, int(item.get("StartedAt") or 0)), max(0, int(item.get("ExitedAt") or 0))
    ended = state == "exited" and finished_s >= started_s > 0  # after a power cut it "exited", but nobody saw how
    code = int(item.get("ExitCode") or 0)
    return ContainerInfo(
        id=str(item["Id"]),
        name=str((item.get("Names") or [""])[0]),
        labels=dict(item.get("Labels") or {}),
        pod_id=str(item.get("Pod") or ""),
        state=state,
        process=process.find(int(item.get("Pid") or 0)) if state == "running" else None,
        exit_code=code if ended and code != UNKNOWN_CODE else None,
        started_wall_s=float(started_s),
        finished_wall_s=float(finished_s),
        image_id=_image_id(str(item.get("ImageID") or "")),
        is_infra=bool(item.get("IsInfra")),
    )


def _known_code(state: Mapping[str, Any]) -> Optional[int]:
    code = int(state["ExitCode"])
    seen = not str(state.get("FinishedAt", "0001")).startswith("0001")
    return code if seen and code != UNKNOWN_CODE else None


def _process_of(inspected: Any) -> list[Process]:
    data = inspected or {}
    return _own_process(str(data.get("Id") or ""), data.get("State", {}).get("Pid"))


def _own_process(container_id: str, pid: Any) -> list[Process]:
    """The container's process, if that is what has this id by now: of one whose conmon was killed as well, Podman says "running" for ever.

    The control group tells. Rootless with version 1 there is none of its own: then what Podman does to end it has to do.
    """
    found = process.find(int(pid or 0))
    return [found] if found and container_id and process.is_in_group(found, container_id) else []


def _image(item: Mapping[str, Any]) -> ImageInfo:
    return ImageInfo(
        id=_image_id(str(item["Id"])),
        names=tuple(item.get("RepoTags") or ()),
        digests=tuple(item.get("RepoDigests") or ()),
        size_bytes=int(item.get("Size") or 0),
        user=str(item.get("User") or (item.get("Config") or {}).get("User") or ""),
        stop_signal=_signal_name(str((item.get("Config") or {}).get("StopSignal") or "")),
    )


def _signal_name(text: str) -> str:
    """An image says SIGQUIT, QUIT, 3 or RTMIN+3; what is no signal counts as not said."""
    if text.isascii() and text.isdigit() and len(text) < 4:
        number = int(text)
        named = [item.name for item in signal.Signals if item == number]
        beyond = f"SIGRTMIN+{number - signal.SIGRTMIN}" if signal.SIGRTMIN < number < signal.SIGRTMAX else ""
        return named[0] if named else beyond
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    try:
        _signal_number(name)
    except RuntimeFault:
        return ""
    return name


def _signal_number(name: str) -> int:
    """Raises RuntimeFault for a name that no signal has."""
    base, plus, offset = name.partition("+")
    if plus and base == "SIGRTMIN" and offset.isascii() and offset.isdigit() and len(offset) < 3:
        number = signal.SIGRTMIN + int(offset)
        if number <= signal.SIGRTMAX:
            return number
    if plus or name not in signal.Signals.__members__:
        raise RuntimeFault("failed", f"no signal is called {name[:20]!r}")
    return signal.Signals[name].value


def _image_id(podman_id: str) -> str:
    return podman_id if podman_id.startswith("sha256:") or not podman_id else f"sha256:{podman_id}"


def _check_ours(labels: Optional[Mapping[str, str]], what: str) -> None:
    if LABEL_CLUSTER not in (labels or {}):
        raise RuntimeFault("conflict", f"{what[:12]} is not ours and is left alone")


def _check_same_owner(body: Mapping[str, Any], labels: Optional[Mapping[str, str]]) -> None:
    if (labels or {}).get(LABEL_CLUSTER) != body["labels"][LABEL_CLUSTER]:
        raise RuntimeFault("conflict", f"the name {body['name']} is taken by something that is not ours")


def _kill(victim: Process) -> None:
    try:
        process.send_signal(victim, signal.SIGKILL)
    except PermissionError:
        return  # the next attempt asks Podman again


def _network(subnet: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """A bridge without DNS; Podman gives out addresses from the lower half, the upper half stays free for fixed ones."""
    network = ipaddress.ip_network(subnet)
    last = network[network.num_addresses // 2 - 1]
    return {
        "name": NETWORK_NAME,
        "driver": "bridge",
        "dns_enabled": False,
        "labels": dict(labels),
        "subnets": [
            {
                "subnet": subnet,
                "gateway": str(network[1]),
                "lease_range": {"start_ip": str(network[2]), "end_ip": str(last)},
            }
        ],
    }


def _auth_header(auth: RegistryAuth) -> str:
    document = json.dumps({"username": auth.username, "password": auth.password})
    return base64.urlsafe_b64encode(document.encode()).decode()
