"""The wire between controller and agent: frames, the codec, and every message as a frozen dataclass.

The only module of the agent that the controller imports. Standard library only, pure, Python 3.9.

A conversation is a byte stream over SSH (a forwarded unix socket, or the standard input and output of `dial`). It carries frames:
4 bytes length, 1 byte kind, payload. Kind JSON carries requests, replies and stream control; the other kinds carry the bytes of the one
stream of that conversation (logs, exec, port-forward, image load). A stream has a conversation of its own, so that it never delays a poll.

    request  {"id": 7, "verb": "report", "body": {…}}       reply  {"id": 7, "ok": {…}} or {"id": 7, "error": {"code", "message"}}
    control  {"credit": n} | {"eof": true} | {"resize": [rows, columns]} | {"cancel": true} | {"exit": {…}}

Compatibility: VERSION is major.minor. A report is read leniently (unknown fields are ignored: agents lag behind and run ahead). A wanted
set is read strictly: an agent that does not know a field refuses the whole set, since it might be a security context.
"""

import json
import math
import struct
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from typing import (
    Any,
    Callable,
    Optional,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

VERSION = (1, 2)

# ---- frames ---------------------------------------------------------------------------------------------------------

FRAME_BYTES_MAX = 8 * 1024 * 1024
STREAM_CHUNK_BYTES = 32 * 1024
STREAM_WINDOW_BYTES = 512 * 1024  # what a sender may have under way before the reader grants more credit

JSON, STDIN, STDOUT, STDERR = 0, 1, 2, 3
_HEADER = struct.Struct(">IB")


class ProtocolError(Exception):
    """Bytes or values that this protocol does not allow. The conversation is closed; nothing was done."""


def frame(message: Mapping[str, Any]) -> bytes:
    """One JSON frame. Raises ProtocolError when it would be too large to be read at the other end."""
    payload = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return data_frame(JSON, payload)


def data_frame(kind: int, payload: bytes) -> bytes:
    """One frame of `kind` (JSON, STDIN, STDOUT, STDERR)."""
    if len(payload) > FRAME_BYTES_MAX:
        raise ProtocolError(f"frame of {len(payload)} bytes, at most {FRAME_BYTES_MAX} are allowed")
    return _HEADER.pack(len(payload), kind) + payload


class FrameReader:
    """Cuts a byte stream into frames. Feed it what arrives; it returns (kind, message or bytes) for each whole frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, received: bytes) -> list[tuple[int, Any]]:
        """Raises ProtocolError on an oversized frame, an unknown kind, or JSON that is broken, too deep, or no object."""
        self._buffer += received
        frames: list[tuple[int, Any]] = []
        while len(self._buffer) >= _HEADER.size:
            length, kind = _HEADER.unpack_from(self._buffer)
            if length > FRAME_BYTES_MAX:
                raise ProtocolError(f"frame of {length} bytes announced, at most {FRAME_BYTES_MAX} are allowed")
            if kind > STDERR:
                raise ProtocolError(f"frame of unknown kind {kind}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            frames.append((kind, parse_json(payload) if kind == JSON else payload))
        return frames


def parse_json(payload: bytes) -> dict[str, Any]:
    """A JSON object from untrusted bytes; ProtocolError for all else (NaN, infinity, bad UTF-8, half a character, too deep, no object)."""
    try:
        message = json.loads(payload.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
        if b"\\ud" in payload.lower():  # half of a surrogate pair: JSON can write it, nothing can store or print it
            json.dumps(message, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not a JSON message: {type(error).__name__}") from None
    if not isinstance(message, dict):
        raise ProtocolError("a JSON message is an object")
    return message


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):  # 1e999 is well-formed
        raise ValueError(text)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


# ---- codec: dataclasses to JSON values and back ------------------------------------------------------------------------

T = TypeVar("T")
_Encoder = Callable[[Any], Any]
_Decoder = Callable[[Any, bool, str], Any]
_UNIONS = (Union, getattr(types, "UnionType", Union))  # X | None is a type of its own from Python 3.10


def encode(value: Any) -> Any:
    """JSON values of a message dataclass. Fields that hold their default are left out, so that an old peer can read a new one."""
    if is_dataclass(value):
        encode_as: Any = _dataclass_encoder
        return encode_as(value.__class__)(value)
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    return value


def decode(cls: type[T], data: Any, *, strict: bool) -> T:
    """A message dataclass from JSON values.

    Args:
        strict: refuse unknown fields (wanted sets) rather than ignore them (reports).
    Raises: ProtocolError with the path of the field, for a wrong type, a missing field, or (strict) an unknown one.
    """
    decode_as: Any = _decoder
    decoded: T = decode_as(cls)(data, strict, cls.__name__)
    return decoded


@cache
def _dataclass_encoder(cls: Any) -> _Encoder:
    hints = get_type_hints(cls)
    known = tuple((item.name, _default_of(item), _encoder(hints[item.name])) for item in fields(cls))

    def write(value: Any) -> Any:
        encoded = {}
        for name, default, inner in known:
            item = getattr(value, name)
            if item != default:
                encoded[name] = item if inner is None else inner(item)
        return encoded

    return write


@cache
def _encoder(kind: Any) -> Optional[_Encoder]:
    """None where a value is its own JSON. Most fields are such: reports are encoded on every change of a pod."""
    origin, args = get_origin(kind), get_args(kind)
    if kind in (str, int, float, bool):
        return None
    if origin in _UNIONS:  # only Optional[X] is used
        inner = _encoder(next(arg for arg in args if arg is not type(None)))
        return None if inner is None else lambda value: None if value is None else inner(value)
    if origin is tuple and _encoder(args[0]) is None:
        return list
    if origin in (dict, Mapping) and _encoder(args[1]) is None:
        return dict
    return encode


def _default_of(item: Any) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return item.default  # MISSING compares unequal to every value: a field without default is always sent


@cache
def _decoder(kind: Any) -> _Decoder:
    if is_dataclass(kind):
        return _dataclass_decoder(kind)
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda data, strict, path: data
    if origin in _UNIONS:  # only Optional[X] is used
        inner = _decoder(next(arg for arg in args if arg is not type(None)))
        return lambda data, strict, path: None if data is None else inner(data, strict, path)
    if origin is tuple:
        return _sequence_decoder(args)
    if origin in (dict, Mapping):
        return _mapping_decoder(args[1])
    return _scalar_decoder(kind)


def _dataclass_decoder(cls: Any) -> _Decoder:
    hints = get_type_hints(cls)
    known = {item.name: _decoder(hints[item.name]) for item in fields(cls)}
    required = frozenset(item.name for item in fields(cls) if _default_of(item) is MISSING)

    def read(data: Any, strict: bool, path: str) -> Any:
        if not isinstance(data, dict):
            raise ProtocolError(f"{path}: an object is expected")
        missing = required - data.keys()
        if missing:
            raise ProtocolError(f"{path}: field {min(missing)!r} is missing")
        values = {}
        for name, item in data.items():
            reader = known.get(name)
            if reader is not None:
                values[name] = reader(item, strict, f"{path}.{name}")
            elif strict:
                raise ProtocolError(f"{path}: unknown field {name[:64]!r}")
        return cls(**values)

    return read


def _sequence_decoder(args: tuple[Any, ...]) -> _Decoder:
    inner = _decoder(args[0])

    def read(data: Any, strict: bool, path: str) -> Any:
        if not isinstance(data, list):
            raise ProtocolError(f"{path}: a list is expected")
        return tuple(inner(item, strict, path) for item in data)

    return read


def _mapping_decoder(value_kind: Any) -> _Decoder:
    inner = _decoder(value_kind)

    def read(data: Any, strict: bool, path: str) -> Any:
        if not isinstance(data, dict):
            raise ProtocolError(f"{path}: an object is expected")
        return {key: inner(item, strict, path) for key, item in data.items()}

    return read


def _scalar_decoder(kind: Any) -> _Decoder:
    def read(data: Any, strict: bool, path: str) -> Any:
        if kind is float and type(data) is int:
            return float(data)
        if type(data) is not kind:  # exact: True is no int here
            raise ProtocolError(f"{path}: {kind.__name__} is expected")
        if kind is int and not -(2**63) <= data < 2**63:
            raise ProtocolError(f"{path}: number out of range")
        return data

    return read


# ---- who speaks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Epoch:
    """Which controller. Numbers are compared; the same number with another id means that two stores have forked."""

    number: int
    id: str


@dataclass(frozen=True)
class Cursor:
    """How far a reader has read an agent's reports and events. Another instance makes the next report a full one."""

    instance: str
    sequence: int


@dataclass(frozen=True)
class Owner:
    """What an agent has accepted: cluster, highest epoch, highest serial with the hash of that wanted set."""

    cluster: str
    epoch: Epoch
    serial: int
    digest: str = ""


# ---- the wanted set: all that one node shall run ------------------------------------------------------------------------


@dataclass(frozen=True)
class Handler:
    """What a probe or hook does; `kind` says which fields count."""

    kind: str  # exec | http | tcp | grpc | sleep
    command: tuple[str, ...] = ()
    port: int = 0
    host: str = ""  # empty: the pod's address
    path: str = "/"
    scheme: str = "HTTP"
    headers: tuple[tuple[str, ...], ...] = ()  # (name, value) pairs
    service: str = ""  # grpc
    seconds: int = 0  # sleep


@dataclass(frozen=True)
class Probe:
    """When and how a container is asked how it is; defaults are Kubernetes'."""

    handler: Handler
    initial_delay_s: int = 0
    period_s: int = 10
    timeout_s: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3
    grace_s: Optional[int] = None  # overrides the pod's for kills by this probe


@dataclass(frozen=True)
class EnvVar:
    """One variable: a literal value (which may hold $(OTHER)) or exactly one source."""

    name: str
    value: Optional[str] = None
    config: str = ""  # "namespace/name" of a config map
    secret: str = ""  # "namespace/name" of a secret
    key: str = ""  # key in the config map or secret
    optional: bool = False
    field: str = ""  # downward API field path, e.g. status.podIP
    resource: str = ""  # downward API resource, e.g. limits.memory
    container: str = ""  # of which container; empty: this one
    divisor: str = ""


@dataclass(frozen=True)
class EnvFrom:
    """All keys of a config map or a secret as environment variables."""

    config: str = ""
    secret: str = ""
    prefix: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Port:
    """A port of a container, and of the host where `host_port` is not 0."""

    container_port: int
    name: str = ""
    host_port: int = 0
    host_ip: str = ""
    protocol: str = "TCP"


@dataclass(frozen=True)
class Mount:
    """Where a container sees a volume."""

    volume: str
    path: str
    read_only: bool = False
    sub_path: str = ""
    sub_path_expr: str = ""  # $(NAME) of the container's variables; instead of sub_path
    propagation: str = ""  # HostToContainer | Bidirectional; empty: none


@dataclass(frozen=True)
class Item:
    """One file of a volume made from keys or fields."""

    key: str = ""
    path: str = ""
    mode: Optional[int] = None
    field: str = ""
    resource: str = ""
    container: str = ""
    divisor: str = ""


@dataclass(frozen=True)
class Source:
    """One part of a projected volume."""

    kind: str  # config | secret | downward
    name: str = ""  # "namespace/name"
    items: tuple[Item, ...] = ()  # empty: all keys
    optional: bool = False


@dataclass(frozen=True)
class Volume:
    """Storage of a pod that its containers mount."""

    name: str
    kind: str  # empty | memory | files | host | claim
    size_bytes: int = 0  # empty, memory; 0: no limit
    sources: tuple[Source, ...] = ()  # files
    mode: int = 0o644  # files
    path: str = ""  # host
    path_type: str = ""  # host: Kubernetes' hostPath.type
    claim: str = ""  # claim: the name of a volume of the wanted set
    read_only: bool = False  # claim: in every container


@dataclass(frozen=True)
class Security:
    """Effective security settings of one container (the pod's merged with its own)."""

    user: Optional[int] = None
    group: Optional[int] = None
    non_root: bool = False
    groups: tuple[int, ...] = ()  # supplemental, fsGroup included
    privileged: bool = False
    read_only_root: bool = False
    escalation: bool = True
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    seccomp: str = "RuntimeDefault"  # or Unconfined


MANIFEST_PIN = "manifest:"  # digest of the manifest: the image can be pulled by it
IMAGE_PIN = "image:"  # id of the image: it is on hosts, and no registry is known to have it


@dataclass(frozen=True)
class Container:
    """One container of a pod: what runs, and within which limits."""

    name: str
    image: str
    pull: str = "IfNotPresent"
    pin: str = ""  # which bytes `image` stands for in this revision: MANIFEST_PIN or IMAGE_PIN + "sha256:…"; empty: whatever it names
    command: Optional[tuple[str, ...]] = None
    args: Optional[tuple[str, ...]] = None
    working_dir: str = ""
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    cpu_request_m: int = 0
    cpu_limit_m: int = 0  # 0: none
    memory_request_bytes: int = 0
    memory_limit_bytes: int = 0
    security: Security = Security()
    startup: Optional[Probe] = None
    readiness: Optional[Probe] = None
    liveness: Optional[Probe] = None
    post_start: Optional[Handler] = None
    pre_stop: Optional[Handler] = None
    sidecar: bool = False  # an init container with restartPolicy Always
    stdin: bool = False
    tty: bool = False
    stop_signal: str = ""
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"  # or FallbackToLogsOnError
    disk_request_bytes: int = 0  # ephemeral-storage, which the downward API tells
    disk_limit_bytes: int = 0


@dataclass(frozen=True)
class HostAlias:
    """A line of the pod's /etc/hosts."""

    ip: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Dns:
    """resolv.conf of a pod. Empty servers: the host's own."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pod:
    """One pod as the agent shall run it. `stop` asks for its orderly end; the record leaves the set once that was reported."""

    uid: str
    namespace: str
    name: str
    hash: str
    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    restart: str = "Always"
    grace_s: int = 30
    deadline_s: int = 0  # activeDeadlineSeconds; 0: none
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_pid: bool = False
    hostname: str = ""
    subdomain: str = ""
    fqdn: bool = False  # the host name with subdomain and domain; without a subdomain it says nothing
    host_aliases: tuple[HostAlias, ...] = ()
    dns: Dns = Dns()
    fs_group: Optional[int] = None
    sysctls: dict[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()  # "namespace/name"
    at_boot: str = "start"  # or hold: not before a wanted set was received in this boot
    stop: bool = False
    stop_grace_s: Optional[int] = None  # overrides grace_s for this stop
    address: str = ""  # a fixed one from the upper half of the node's subnet


@dataclass(frozen=True)
class ClaimVolume:
    """A volume that lasts. One that is not in the set is left alone: only `remove` removes it, once no pod here mounts it."""

    name: str  # sshoal-<cluster>-<uid of the claim>-<number>
    claim: str  # "namespace/name", for people
    directory: str = ""  # of the host, in which it lies; empty: a volume of Podman
    make: bool = False  # it may be made: it was never told to be there. Otherwise a missing one is lost data
    remove: bool = False


@dataclass(frozen=True)
class Config:
    """Content of a config map. Binary values are base64."""

    hash: str
    data: dict[str, str] = field(default_factory=dict)
    binary: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SecretValue:
    """Content of a secret, all base64. Travels in its own message, never in a wanted set."""

    hash: str
    data: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"SecretValue(hash={self.hash!r}, keys={sorted(self.data)})"


@dataclass(frozen=True)
class NodeConfig:
    """What an agent needs to know of its node."""

    name: str
    subnet: str  # of the podman network `sshoal` on this node, e.g. "10.86.3.0/24"
    cluster_range: str
    host_paths: tuple[str, ...] = ()  # allow-list for hostPath volumes: path prefixes
    address: str = ""  # where the controller reaches it: status.hostIP
    storage: tuple[str, ...] = ()  # directories in which volumes of claims may lie


@dataclass(frozen=True)
class Peer:
    """Another node, as the controller knows it."""

    name: str
    address: str


@dataclass(frozen=True)
class WantedSet:
    """Everything one node shall run: complete, numbered, idempotent. No pods is an order; no set is none."""

    cluster: str
    epoch: Epoch
    serial: int
    digest: str  # hash over all else but epoch; the same serial with another digest is refused
    node: NodeConfig
    pods: tuple[Pod, ...] = ()
    configs: dict[str, Config] = field(default_factory=dict)  # by "namespace/name"
    secrets: dict[str, str] = field(default_factory=dict)  # "namespace/name" -> hash of the value
    peers: tuple[Peer, ...] = ()  # the cluster's nodes, for `adopt`
    sealed: str = ""  # sealed copy of the objects, for `adopt`
    volumes: tuple[ClaimVolume, ...] = ()


@dataclass(frozen=True)
class Accepted:
    """Answer to a wanted set: which secret values the agent lacks."""

    serial: int
    missing_secrets: tuple[str, ...] = ()


# ---- the report: what an agent says -------------------------------------------------------------------------------------

WAITING, RUNNING, TERMINATED = "waiting", "running", "terminated"


@dataclass(frozen=True)
class ContainerReport:
    """State of one container. Times are seconds since 1970 on the host's clock, for display."""

    name: str
    state: str  # waiting | running | terminated
    reason: str = ""
    message: str = ""
    image: str = ""
    image_id: str = ""
    init: bool = False
    ready: bool = False
    started: bool = False  # its startup probe, if any, has passed
    restarts: int = 0
    started_wall_s: float = 0.0
    finished_wall_s: float = 0.0
    exit_code: Optional[int] = None  # None while unknown (conmon died: fact 2)
    last_reason: str = ""
    last_exit_code: Optional[int] = None
    last_finished_wall_s: float = 0.0


PENDING, RUNNING_PHASE, SUCCEEDED, FAILED, STOPPING, STOPPED = (
    "Pending",
    "Running",
    "Succeeded",
    "Failed",
    "Stopping",
    "Stopped",
)


@dataclass(frozen=True)
class PodReport:
    """State of one pod. `ready_since_s` is on the agent's boot clock: compare it with the report's own `boottime_s`."""

    uid: str
    namespace: str
    name: str
    hash: str
    phase: str  # Pending | Running | Succeeded | Failed | Stopping | Stopped
    ready: bool = False
    ready_since_s: float = 0.0
    ip: str = ""
    reason: str = ""
    message: str = ""
    started_wall_s: float = 0.0
    containers: tuple[ContainerReport, ...] = ()


@dataclass(frozen=True)
class AgentEvent:
    """Something that happened on the host, for people to read."""

    sequence: int
    wall_s: float
    type: str  # Normal | Warning
    reason: str
    message: str
    pod_uid: str = ""
    pod: str = ""  # "namespace/name"
    container: str = ""


@dataclass(frozen=True)
class Capacity:
    """What the host has, and what podman on it is."""

    cpu_m: int = 0
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    pods: int = 110
    arch: str = ""
    os: str = ""
    kernel: str = ""
    python: str = ""
    podman: str = ""
    cgroups: str = ""  # v1 | v2
    rootless: bool = False
    ports_from: int = 0  # pods get no port of the host below this one


@dataclass(frozen=True)
class Condition:
    """Something wrong with the node, e.g. DiskPressure, RuntimeUnhealthy. Present means true."""

    kind: str
    reason: str
    message: str


@dataclass(frozen=True)
class ImageReport:
    """An image that is in the host's storage."""

    id: str
    names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size_bytes: int = 0


VOLUME_HELD, VOLUME_MISSING, VOLUME_REMOVED, VOLUME_UNUSABLE = "held", "missing", "removed", "unusable"


@dataclass(frozen=True)
class VolumeReport:
    """A volume that is named in the set, or one of this cluster that is found on the host all the same."""

    name: str
    state: str  # held | missing | removed (as ordered) | unusable (it could not be made, looked at or removed: see message)
    path: str = ""
    message: str = ""
    directory: str = ""  # as in ClaimVolume


@dataclass(frozen=True)
class Report:
    """What changed on a node since the reader's cursor; everything when `full`."""

    agent: str  # UUID, made at first start, kept on the host
    cursor: Cursor  # ask with it next time
    boot_id: str
    boottime_s: float
    wall_s: float
    version: str = ""  # digest of the agent's bundle
    owner: Optional[Owner] = None
    full: bool = False
    pods: tuple[PodReport, ...] = ()
    gone: tuple[str, ...] = ()  # uids of pods that are no more
    events: tuple[AgentEvent, ...] = ()
    capacity: Optional[Capacity] = None  # when full, or changed
    conditions: tuple[Condition, ...] = ()  # always all
    images: Optional[tuple[ImageReport, ...]] = None  # when full, or changed
    missing_secrets: tuple[str, ...] = ()
    volumes: Optional[tuple[VolumeReport, ...]] = None  # when full, or changed


@dataclass(frozen=True)
class Sample:
    """What was used over the `window_s` until `at_s` (the agent's boot clock). Memory is the working set at its end."""

    at_s: float
    window_s: float
    cpu_u: int  # millionths of a cpu
    memory_bytes: int


@dataclass(frozen=True)
class ContainerUsage:
    """Samples of one container, oldest first."""

    uid: str  # of its pod
    container: str
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class Usage:
    """What a node and the containers on it used in the last minutes."""

    boot_id: str
    boottime_s: float
    node: tuple[Sample, ...] = ()
    containers: tuple[ContainerUsage, ...] = ()


# ---- verbs ----------------------------------------------------------------------------------------------------------------

# request body -> reply body; streams are said so
HELLO = "hello"  # {} -> Hello
REPORT = "report"  # ReportRequest -> Report
USAGE = "usage"  # UsageRequest -> Usage
WANT = "want"  # WantedSet -> Accepted
SECRETS = "secrets"  # SecretsRequest -> {}
TAKEOVER = "takeover"  # TakeoverRequest -> {}
FORGET = "forget"  # ForgetRequest -> {}: stop and remove all of ours on the host
RESOLVE = "resolve"  # ResolveRequest -> Resolved
LOGS = "logs"  # LogsRequest -> {}, then STDOUT/STDERR frames and {"exit"}
EXEC = "exec"  # ExecRequest -> {}, then STDIN/STDOUT/STDERR frames, control, {"exit": {"code": n}}
FORWARD = "forward"  # ForwardRequest -> {}, then STDIN (to the pod) and STDOUT (from it) frames
# ImageLoad -> {}, then for each line of STDOUT frames (ImageWants) STDIN frames with those bytes; {"exit": {"image": id, "present"?}}
IMAGE_LOAD = "image-load"

# error codes of replies
BAD_REQUEST = "bad-request"  # not of the protocol; nothing was done
UNKNOWN_VERB = "unknown-verb"
OWNED = "owned"  # another cluster's agent
OLD_EPOCH = "old-epoch"  # a newer controller has been here
FORKED = "forked"  # same epoch number, another id
OLD_SERIAL = "old-serial"  # this agent is ahead of that store
CONFLICT = "conflict"  # same serial, other content
NOT_FOUND = "not-found"
FAILED_CODE = "failed"  # tried and failed, the message says why


@dataclass(frozen=True)
class Hello:
    """Who an agent is; the answer to the first request of a conversation."""

    version: tuple[int, ...]
    agent: str
    instance: str
    bundle: str
    boot_id: str
    boottime_s: float
    wall_s: float
    owner: Optional[Owner] = None
    capacity: Optional[Capacity] = None


@dataclass(frozen=True)
class ReportRequest:
    """`wait_s`: hold the answer until something changed, at most so long."""

    cursor: Optional[Cursor] = None
    wait_s: float = 0.0


@dataclass(frozen=True)
class UsageRequest:
    """Samples that are newer than `since_s` on the agent's boot clock."""

    since_s: float = 0.0


@dataclass(frozen=True)
class SecretsRequest:
    """Values of secrets that the accepted set names."""

    cluster: str
    epoch: Epoch
    values: dict[str, SecretValue] = field(default_factory=dict)  # by "namespace/name"


@dataclass(frozen=True)
class TakeoverRequest:
    """Explicit change of owner, after the user was shown the present one."""

    from_cluster: str
    to_cluster: str
    epoch: Epoch


@dataclass(frozen=True)
class ForgetRequest:
    """Stop all pods, each with its grace, and forget the cluster."""

    cluster: str
    epoch: Epoch


@dataclass(frozen=True)
class ResolveRequest:
    """What does a tag stand for in its registry? `image` in its full form, registry/repository:tag."""

    image: str
    secrets: tuple[SecretValue, ...] = ()  # pull secrets, to be tried in this order


@dataclass(frozen=True)
class Resolved:
    """What a tag stands for now."""

    digest: str  # "sha256:…" of the manifest


@dataclass(frozen=True)
class LogsRequest:
    """What a container has written."""

    uid: str
    container: str
    previous: bool = False
    follow: bool = False
    timestamps: bool = False
    tail: int = -1  # lines; -1: all
    since_s: float = 0.0  # only lines younger than so many seconds; 0: all
    limit_bytes: int = 0  # 0: none


@dataclass(frozen=True)
class ExecRequest:
    """A command inside a container."""

    uid: str
    container: str
    command: tuple[str, ...]
    stdin: bool = False
    tty: bool = False
    rows: int = 0
    columns: int = 0


@dataclass(frozen=True)
class ImageLayer:
    """A layer of an image, by what it is uncompressed."""

    digest: str  # "sha256:…" of the layer's tar, uncompressed: what the configuration names as its diff id
    size_bytes: int


@dataclass(frozen=True)
class ImageLoad:
    """An image to be brought here. `config` is its configuration, byte for byte: that text's SHA-256 is the image's id."""

    config: str
    names: tuple[str, ...]
    layers: tuple[ImageLayer, ...]  # lowest first


@dataclass(frozen=True)
class LayerWanted:
    """A layer, from a byte on to its end."""

    digest: str
    offset: int  # so many bytes of it are here from an earlier attempt


@dataclass(frozen=True)
class ImageWants:
    """Which layers the agent lacks: they are sent one after the other, in this order, each from its offset to its end."""

    layers: tuple[LayerWanted, ...]


@dataclass(frozen=True)
class ForwardRequest:
    """A connection to a port inside a pod."""

    uid: str
    port: int
