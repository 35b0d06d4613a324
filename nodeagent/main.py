"""Process of the agent: arguments, paths, logging, one instance at a time, systemd's notifications, and the wiring of all parts.

`run` is what the unit starts; an ordinary user's moves into his Podman's namespaces first (nodeagent.rootless). `podman-config` goes before
Podman's service; `hello` asks the running agent who it is; `version` tells of this bundle. `dial` is in __main__, for speed.
"""

import asyncio
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from nodeagent import protocol, rootless
from nodeagent.storage import own_directory

LOCK_WAIT_S = 30.0
LOCK_POLL_S = 0.1
CLOSE_TIMEOUT_S = 10.0
HELLO_TIMEOUT_S = 10.0
THREADS_MAX = 6  # disk and engine calls; each costs memory
BALLAST_BYTES = 16 * 1024 * 1024
NAMESPACE_LOOK_S = 15.0
ENTERED = "run-entered"  # what `run` of an ordinary user goes on as; with the directories, since it is another user id by then
EXIT_FAILED, EXIT_USAGE, EXIT_LOCKED = 1, 2, 75

_log = logging.getLogger("sshoal.main")


@dataclass(frozen=True)
class Paths:
    """Where the agent keeps what. All belong to its user, 0700."""

    state: Path
    run: Path
    rootless: bool = False

    @property
    def socket(self) -> Path:
        return self.run / "agent.sock"

    @property
    def podman_socket(self) -> Path:
        return self.run / "podman.sock"

    @property
    def lock(self) -> Path:
        return self.run / "agent.lock"

    @property
    def documents(self) -> Path:
        return self.state / "documents"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def uploads(self) -> Path:
        return self.state / "uploads"


SELINUX = Path("/sys/fs/selinux/enforce")  # there while SELinux is on, enforcing or not
ROOTFUL = Paths(state=Path("/var/lib/sshoal"), run=Path("/run/sshoal"))


def user_paths() -> Paths:
    return Paths(state=rootless.state_directory(), run=rootless.run_directory(), rootless=True)


def main(arguments: list[str], paths: Optional[Paths] = None) -> int:
    """Runs one command. Returns the process's exit code: 0, 1 failed, 2 usage, 75 another agent holds the lock."""
    if len(arguments) == 3 and arguments[0] == ENTERED:
        return run(Paths(Path(arguments[1]), Path(arguments[2]), rootless=True))
    if paths is None:
        paths = user_paths() if os.geteuid() else ROOTFUL
    commands = {"run": _enter_and_run if paths.rootless else run, "hello": hello, "version": version}
    if len(arguments) == 2 and arguments[0] == "podman-config":
        return configure_podman(paths, arguments[1])
    if len(arguments) != 1 or arguments[0] not in commands:
        usage = "usage: run | dial [--socket PATH] [--nonce WORD] | hello | podman-config PODMAN | version\n"
        sys.stderr.write(usage)
        return EXIT_USAGE
    return commands[arguments[0]](paths)


def bundle_digest() -> str:
    """Bundles are unpacked into a directory named by their SHA-256."""
    return Path(os.path.realpath(__file__)).parent.parent.name


def version(paths: Paths) -> int:
    sys.stdout.write(json.dumps({"bundle": bundle_digest(), "protocol": list(protocol.VERSION)}) + "\n")
    return 0


def configure_podman(paths: Paths, podman: str) -> int:
    """What goes before Podman's service: its settings; where that fails, Podman runs with the host's alone."""
    from nodeagent import podman_config

    if paths.rootless:
        rootless.end_leftovers(paths.podman_socket)
    try:
        podman_config.write(paths.run, podman, home=Path.home() if paths.rootless else None)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"Podman runs with this host's settings alone, execs stay for minutes: {error}\n")
        return EXIT_FAILED
    return 0


def hello(paths: Paths) -> int:
    """Prints the running agent's hello as JSON."""
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(HELLO_TIMEOUT_S)
        try:
            agent.connect(str(paths.socket))
            agent.sendall(protocol.frame({"id": 0, "verb": protocol.HELLO}))
            reader = protocol.FrameReader()
            frames: list[Any] = []
            while not frames:
                frames = reader.feed(agent.recv(65536) or _raise_gone())
        except (OSError, protocol.ProtocolError) as error:
            sys.stderr.write(f"no answer at {paths.socket}: {error}\n")
            return EXIT_FAILED
    reply = frames[0][1]
    sys.stdout.write(json.dumps(reply.get("ok", reply)) + "\n")
    return 0 if "ok" in reply else EXIT_FAILED


def _raise_gone() -> bytes:
    raise ConnectionResetError("the agent closed the connection")


def _enter_and_run(paths: Paths) -> int:
    try:
        rootless.enter([ENTERED, str(paths.state), str(paths.run)])
    except rootless.NoNamespace as trouble:
        sys.stderr.write(f"{trouble}\n")
    return EXIT_FAILED


# ---- run ------------------------------------------------------------------------------------------------------------------


def run(paths: Paths) -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    os.umask(0o077)
    for directory in (paths.state, paths.run):
        own_directory(directory)
    lock = take_lock(paths.lock, LOCK_WAIT_S)
    if lock is None:
        _log.error("another agent still runs after %g s (lock %s)", LOCK_WAIT_S, paths.lock)
        return EXIT_LOCKED
    try:
        return asyncio.run(_serve(paths))
    except Exception:
        _log.exception("the agent ends")
        return EXIT_FAILED
    finally:
        os.close(lock)


def take_lock(path: Path, wait_s: float) -> Optional[int]:
    """A descriptor that holds the lock, which ends with this process however it ends; None when another one keeps it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                os.close(descriptor)
                return None
            time.sleep(LOCK_POLL_S)


async def _serve(paths: Paths) -> int:
    """Everything up, told to systemd; then until SIGTERM or SIGINT; then down again → exit code. Pods are not touched by either."""
    from nodeagent.layers import LayerStore
    from nodeagent.server import serve

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="agent"))
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    try:
        LayerStore(paths.uploads).clean()
    except OSError as error:
        _log.warning("leftovers of images in %s stay: %s", paths.uploads, error)
    agent = build_agent(paths)
    await agent.start()
    server = await serve(agent, str(paths.socket), uploads=str(paths.uploads))
    _log.info("ready: bundle %s, protocol %d.%d", bundle_digest()[:12], *protocol.VERSION)
    notify("READY=1")
    watchdog = asyncio.ensure_future(_feed_watchdog())
    ended = asyncio.ensure_future(ending.wait())
    ends: set[asyncio.Future[Any]] = {ended}
    if paths.rootless:
        ends.add(asyncio.ensure_future(_left_behind(paths.podman_socket)))
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return 0 if ended.done() else EXIT_FAILED  # systemd starts another agent
    finally:
        notify("STOPPING=1")
        for task in (watchdog, *ends):
            task.cancel()
        await _within(server.close())
        await _within(agent.close())


async def _left_behind(podman_socket: Path) -> None:
    """Returns when a rootless Podman works in other namespaces than this process: an agent that starts anew follows it there."""
    watch = rootless.NamespaceWatch(podman_socket)
    moved = False
    while not moved:
        await asyncio.sleep(NAMESPACE_LOOK_S)
        moved = await asyncio.to_thread(watch.has_moved)
    _log.warning("Podman has left for a new user namespace; the agent follows by starting anew")


def build_agent(paths: Paths) -> Any:
    """The production agent: Podman, this host's files, disk and clock."""
    from nodeagent.agent import Agent
    from nodeagent.clock import HostClock
    from nodeagent.files import HostFiles
    from nodeagent.logfiles import LogFiles
    from nodeagent.podman_runtime import PodmanRuntime
    from nodeagent.probes import HostProber
    from nodeagent.spec import HostRules
    from nodeagent.storage import DirStorage
    from nodeagent.usage import HostMeter

    runtime = PodmanRuntime(str(paths.podman_socket))
    return Agent(
        runtime,
        HostFiles(str(paths.state), str(paths.run)),
        DirStorage(str(paths.documents), ballast_bytes=BALLAST_BYTES),
        HostClock(),
        HostProber(runtime, enter_pods=paths.rootless),
        bundle=bundle_digest(),
        logs_dir=str(paths.logs),
        logs=LogFiles(str(paths.logs)),
        host=host_capacity(paths.rootless),
        rules=HostRules(oom_score_min=_oom_score_min(paths)),
        meter=HostMeter(),
        free_bytes=lambda: shutil.disk_usage(paths.state).free,
        selinux=SELINUX.exists(),
    )


def _oom_score_min(paths: Paths) -> int:
    from nodeagent.process import may_lower_oom_scores
    from nodeagent.spec import OOM_SCORE_MIN

    if paths.rootless:
        return rootless.oom_score()
    return OOM_SCORE_MIN if may_lower_oom_scores() else 0


def host_capacity(is_rootless: bool) -> protocol.Capacity:
    """What this host has; the engine's part is the agent's to fill in."""
    system = os.uname()
    return protocol.Capacity(
        cpu_m=len(os.sched_getaffinity(0)) * 1000,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        arch=_ARCHITECTURES.get(system.machine, system.machine),
        os=_os_name(),
        kernel=system.release,
        python=".".join(str(part) for part in sys.version_info[:3]),
        rootless=is_rootless,
        ports_from=rootless.ports_from() if is_rootless else 0,
    )


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}  # as images and Kubernetes call them


def _os_name() -> str:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "Linux"
    named = dict(line.partition("=")[::2] for line in text.splitlines())
    return named.get("PRETTY_NAME", "Linux").strip("\"'")


async def _within(work: Any) -> None:
    try:
        await asyncio.wait_for(work, CLOSE_TIMEOUT_S)
    except asyncio.TimeoutError:
        _log.warning("a part of the agent did not end within %g s", CLOSE_TIMEOUT_S)


# ---- systemd --------------------------------------------------------------------------------------------------------------


def notify(state: str) -> None:
    """Tells systemd; without systemd nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        try:
            manager.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            _log.warning("systemd could not be told %s: %s", state, error)


async def _feed_watchdog() -> None:
    """Pings from the event loop itself: a loop that hangs is what the watchdog is for."""
    period_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 / 3
    while period_s:
        notify("WATCHDOG=1")
        await asyncio.sleep(period_s)
