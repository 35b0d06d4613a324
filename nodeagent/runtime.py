"""What the agent needs of a container engine and of the host: small interfaces, so that the production agent also runs in simulation.

podman_runtime.PodmanRuntime (podman-py, the only importer of podman), tests/fakes (simulation), and any that a test needs.
All methods are coroutines with a deadline inside; a failure is a RuntimeFault. Only pods and containers that carry our labels are listed.

A container is believed alive only by its process: pid and start time from /proc (Podman goes on saying "running" when conmon and payload
were killed together: FAULTS §1, facts 1 and 2).
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol

from nodeagent.protocol import Handler

# Labels on every Podman object of ours. A fixed list: they are part of the records that can't change later.
LABEL_CLUSTER = "sshoal.dev/cluster"
LABEL_UID = "sshoal.dev/pod-uid"
LABEL_NAMESPACE = "sshoal.dev/namespace"
LABEL_POD = "sshoal.dev/pod"
LABEL_HASH = "sshoal.dev/hash"
LABEL_CONTAINER = "sshoal.dev/container"
LABEL_ATTEMPT = "sshoal.dev/attempt"
LABEL_CLAIM = "sshoal.dev/claim"

NETWORK_NAME = "sshoal"


class RuntimeFault(Exception):
    """The engine refused or failed. `reason` is a word a program can act on, `str()` is for people.

    reasons: timeout | not-found | conflict (a name is taken) | image-missing | pull-failed | port-taken | no-space | unavailable |
        storage-corrupt (an image's layers are lost) | failed
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for another one with the same pid: start time in clock ticks since boot."""

    pid: int
    start_ticks: int


@dataclass(frozen=True)
class PodInfo:
    """A Podman pod of ours."""

    id: str
    name: str
    labels: Mapping[str, str]
    infra_id: str = ""


@dataclass(frozen=True)
class ContainerInfo:
    """A container of ours as Podman tells it. `process` is set while Podman says running and /proc agrees."""

    id: str
    name: str
    labels: Mapping[str, str]
    pod_id: str
    state: str  # created | running | exited | other words of Podman | external (in storage only, holds its name)
    process: Optional[Process] = None
    exit_code: Optional[int] = None
    oom_killed: bool = False
    started_wall_s: float = 0.0
    finished_wall_s: float = 0.0
    image_id: str = ""
    is_infra: bool = False


@dataclass(frozen=True)
class Listing:
    pods: tuple[PodInfo, ...]
    containers: tuple[ContainerInfo, ...]  # infra containers included


@dataclass(frozen=True)
class Exit:
    """How a container ended. `code` is None when nobody can know (its conmon was killed)."""

    code: Optional[int]
    oom_killed: bool = False


@dataclass(frozen=True)
class PodNet:
    """After a pod was started: its address (empty with the host's network) and the process that holds its namespaces."""

    ip: str
    process: Optional[Process]


@dataclass(frozen=True)
class ImageInfo:
    id: str
    names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size_bytes: int = 0
    user: str = ""  # the image's configured user: runAsNonRoot is judged by it
    stop_signal: str = ""  # "SIGQUIT"; empty: the image names none


@dataclass(frozen=True)
class RuntimeInfo:
    version: str
    cgroups: str  # v1 | v2
    rootless: bool
    graph_root: str
    controllers: tuple[str, ...] = ()  # of control groups: what limits can be set


@dataclass(frozen=True)
class VolumeInfo:
    """A named volume with our label; `path` is where its files are on the host."""

    name: str
    labels: Mapping[str, str]
    path: str


@dataclass(frozen=True)
class ExecResult:
    """`code` None: it did not end within its deadline (it was then killed)."""

    code: Optional[int]
    output: bytes


class ExecSession(Protocol):
    """A running exec with streams. Iterate it for (protocol.STDOUT | protocol.STDERR, bytes)."""

    def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]: ...
    async def write(self, data: bytes) -> None: ...
    async def end_input(self) -> None: ...
    async def resize(self, rows: int, columns: int) -> None: ...
    async def exit_code(self) -> Optional[int]: ...
    async def close(self) -> None:
        """Kills what still runs and frees everything."""


@dataclass(frozen=True)
class RegistryAuth:
    """Credentials for one pull, never shown."""

    username: str
    password: str = field(repr=False)


class Runtime(Protocol):
    async def info(self) -> RuntimeInfo: ...

    async def list(self) -> Listing:
        """All pods and containers with our labels (any cluster id), those left in storage only included."""

    async def ensure_network(self, subnet: str, labels: Mapping[str, str]) -> None:
        """The bridge network `sshoal` with that subnet, no DNS; conflict when one exists with another subnet and is in use."""

    async def remove_network(self) -> None:
        """Removes our network. No error when there is none, or when it is not ours."""

    async def volumes(self) -> tuple[VolumeInfo, ...]:
        """All named volumes with our labels (any cluster id)."""

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> str:
        """→ its path; that of the one that is there already, when it has the same cluster label, else conflict."""

    async def remove_volume(self, name: str) -> None:
        """Removes it with all its data, verified. No error when there is none; conflict when it is not ours or a container has it."""

    async def create_pod(self, body: Mapping[str, Any]) -> str:
        """Body as spec.pod_body makes it → pod id. A leftover of the same name (ours by construction) is replaced."""

    async def start_pod(self, pod_id: str) -> PodNet:
        """Starts the infra container only, so that the containers come up in our order."""

    async def pod_net(self, pod_id: str) -> PodNet:
        """Of a pod that runs already: process None when its infra container is not alive."""

    async def create_container(self, body: Mapping[str, Any]) -> str:
        """Body as spec.container_body makes it → container id. A leftover of the same name is replaced, verified, retried."""

    async def start_container(self, container_id: str) -> Process: ...

    def is_alive(self, process: Process) -> bool: ...

    async def wait_exit(self, process: Process) -> None:
        """Returns at once when the process is gone, else when it ends (pidfd; no polling)."""

    async def exit_of(self, container_id: str) -> Exit:
        """How a container whose process is gone ended. Waits a moment for Podman to learn it."""

    async def signal(self, container_id: str, process: Process, name: str) -> None:
        """Sends e.g. "SIGTERM" to the container's first process; no error when it is gone already."""

    async def remove_container(self, container_id: str) -> None:
        """Kills and removes, and verifies that both the record and the process are gone. No error when there is none."""

    async def remove_pod(self, pod_id: str) -> None:
        """Kills and removes the pod with all its containers, verified. No error when there is none."""

    async def exec(self, container_id: str, command: tuple[str, ...], timeout_s: float) -> ExecResult:
        """Runs a command to its end; output is cut at 64 KiB; at the deadline it is killed."""

    async def exec_stream(self, container_id: str, command: tuple[str, ...], tty: bool, stdin: bool) -> ExecSession: ...

    async def connect(self, process: Process, port: int, timeout_s: float) -> Any:
        """(reader, writer) of asyncio streams to 127.0.0.1:port inside the network namespace of `process` (port-forward)."""

    async def images(self) -> tuple[ImageInfo, ...]: ...

    async def image(self, reference: str) -> Optional[ImageInfo]:
        """The image of that name or id, if it is on the host. Raises storage-corrupt for one whose layers are lost."""

    async def remove_image(self, reference: str) -> None:
        """Never by force: conflict where a container is made of it. No error when there is none."""

    async def pull(self, reference: str, auth: Optional[RegistryAuth]) -> str:
        """Pulls → image id. pull-failed with the registry's own words; gives up after a time without progress."""

    async def resolve(self, reference: str, auth: Optional[RegistryAuth]) -> str:
        """What a tag stands for in its registry now: "sha256:…" of the manifest. pull-failed when that cannot be learned."""

    async def layers(self) -> frozenset[str]:
        """Digests ("sha256:…") of the uncompressed layers of all images here."""

    async def load_image(self, archive: Iterable[bytes]) -> None:
        """Loads an archive, read in a thread. Blobs of layers that are here already may be left out of an OCI archive."""

    async def tag(self, image_id: str, name: str) -> None:
        """Gives an image one more name, "repository:tag"; it is taken from whichever image had it."""

    async def unstick(self, ids: Collection[str], hanging_s: float) -> tuple[str, ...]:
        """For an engine that has not answered for `hanging_s`: ends what of ours it waits for → what was ended, in words.

        Args:
            ids: of our containers, infra containers and pods, by which our processes are told from others'.
        """


class Clock(Protocol):
    """Time of the host. Durations are measured on the boot clock, which runs on while the machine is suspended."""

    def wall_s(self) -> float: ...
    def boottime_s(self) -> float: ...
    def boot_id(self) -> str: ...


class Storage(Protocol):
    """Small documents that survive a reboot. Each write is whole or not at all (temp, fsync, rename, fsync of the directory).

    Attributes:
        sealing: whether secret documents are sealed; None until the first one was written or read sealed.
        sealing_trouble: why not.
    """

    sealing: Optional[bool]
    sealing_trouble: str

    def load(self, name: str) -> Optional[dict[str, Any]]:
        """None when there is none. Raises StorageCorrupt when it can't be read back."""

    def save(self, name: str, document: Mapping[str, Any], *, secret: bool = False) -> None:
        """Raises OSError (disk full, read-only); the old document then stays as it was. `secret`: sealed where possible, 0600."""

    def delete(self, name: str) -> None: ...


class StorageCorrupt(Exception):
    """A document on disk is not what was written there."""


class Files(Protocol):
    """Directories and files that pods mount. Paths returned are host paths."""

    async def prepare(self, pod: Any, content: "Content") -> dict[str, str]:
        """Makes every volume of the pod (protocol.Pod) plus its resolv.conf and hosts → {volume name: host path}.

        "/etc/resolv.conf" and "/etc/hosts" are keys too. Raises MissingContent while a config map or secret is not there, OSError else.
        """

    async def prepare_container(
        self, pod: Any, container: Any, attempt: int, paths: Mapping[str, str]
    ) -> dict[str, str]:
        """What one attempt of a container mounts beside whole volumes, made from what `prepare` gave → {key: host path}.

        Keys are spec.sub_path_key() of its mounts and spec.TERMINATION_KEY. Raises OSError: a sub path leads out of its volume, or else.
        """

    async def termination_message(self, uid: str, container: str, attempt: int) -> str:
        """What that attempt left as its last words, at most 4 KiB; empty when there is nothing."""

    async def refresh(self, pod: Any, content: "Content") -> None:
        """Brings files of config maps and secrets up to date in place, by atomic swap; containers see the change."""

    async def set_address(self, pod: Any, ip: str) -> None:
        """Completes the pod's hosts file once its address is known."""

    async def volumes(self, directory: str) -> dict[str, str]:
        """{name: path} of what may be volumes of ours in a declared directory; empty when it is not there. Raises OSError."""

    async def make_volume(self, directory: str, name: str) -> str:
        """→ path. Raises OSError: the directory is not there, or else."""

    async def open_volume(self, path: str) -> None:
        """Every user of a pod may write into a volume that is still empty. Raises OSError."""

    async def remove_volume(self, directory: str, name: str) -> None:
        """With all its data. No error when there is none. Raises OSError, also when the directory may be a disk that is not mounted."""

    async def remove(self, uid: str) -> None: ...

    async def uids(self) -> tuple[str, ...]:
        """Pods that have files here, so that leftovers can be removed."""


@dataclass(frozen=True)
class Content:
    """Config maps and secrets that the agent holds, by "namespace/name"."""

    configs: Mapping[str, Any]  # protocol.Config
    secrets: Mapping[str, Any] = field(repr=False)  # protocol.SecretValue
    wanted_secrets: Mapping[str, str] = field(default_factory=dict)  # hashes named by the wanted set
    host_paths: tuple[str, ...] = ()  # allow-list for hostPath volumes, as NodeConfig.host_paths
    volumes: Mapping[str, str] = field(default_factory=dict)  # paths of the volumes of claims that can be mounted


class MissingContent(Exception):
    """A pod refers to a config map, secret, key or volume that does not exist here (or has not arrived yet)."""


@dataclass(frozen=True)
class ProbeOutcome:
    """Result of one probe or hook; the message says why not."""

    ok: bool
    message: str = ""
    known: bool = True  # False: it could not be asked at all, which says nothing of the container (as kubelet: the result is dropped)


class Prober(Protocol):
    async def probe(
        self, handler: Handler, *, ip: str, sandbox: Optional[Process], container_id: str, timeout_s: float
    ) -> ProbeOutcome:
        """One attempt within `timeout_s`. Never raises.

        Args:
            sandbox: the process that holds the pod's own network; None on the host's.
        """
