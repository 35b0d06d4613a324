"""Runs ON THE HOST, as root, or as the ordinary user of a rootless agent: installs one version of the agent. Sent as text by
bootstrap.push; the controller never imports it.

In: one JSON line on standard input, then the packed archive. Out: one JSON line. Python 3.9, standard library only.

Cut at any point, it leaves either the old or the new agent in charge, and the next push goes on from there: a version's directory appears
by one rename when it is complete and on disk, `current` is switched by another, and a new agent that does not answer is replaced by the
old one here on the host, whether or not the controller is still there. No pod is touched by any of this.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ARCHIVE_BYTES_MAX = 64 * 1024 * 1024
LOCK_WAIT_S = 90
CRASHES_MAX = 3
SETTLED_S = 15  # an agent that crashes soon after each start has done so once more by then
REFUSED_S = 3600  # for how long a version that was fallen back from is not tried again
UNITS, REFUSED = ".units.json", ".refused"  # beside a version's files: what it was started by, and that it crashed
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IS_ROOT = os.geteuid() == 0
UNIT_DIRECTORY = Path("/etc/systemd/system") if IS_ROOT else Path.home() / ".config/systemd/user"


class Failed(Exception):
    """Said to the controller as it is."""


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    packed = sys.stdin.buffer.read(request["size"])
    os.umask(0o077)
    if not IS_ROOT:
        os.environ["XDG_RUNTIME_DIR"] = f"/run/user/{os.geteuid()}"  # a login without PAM does not set it
    try:
        answer = install(request, packed)
    except Failed as failed:
        answer = {"error": str(failed)}
    except OSError as error:
        answer = {"error": f"{error.filename or 'system'}: {error.strerror or error}"}
    sys.stdout.write(json.dumps(answer) + "\n")


def install(request: dict[str, Any], packed: bytes) -> dict[str, Any]:
    request["directory"] = str(Path.home() / request["directory"])  # as it is when absolute
    request["socket"] = request["socket"].replace("{uid}", str(os.geteuid()))
    digest, root = request["digest"], Path(request["directory"])
    podman = shutil.which("podman", path=SEARCH_PATH)
    if podman is None:
        raise Failed("Podman is not installed")
    request["units"] = {name: text.replace("{podman}", podman) for name, text in request["units"].items()}
    root.parent.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    own_directory(root.parent)
    own_directory(root)
    with locked(root / "push.lock"):
        running = hello(request["socket"])
        if in_place(request, running):
            return {"changed": False}
        version = root / "versions" / digest
        if target_of(root) != f"versions/{digest}" and is_refused(version):
            return {
                "error": f"this version crashed here again and again; it is tried anew {REFUSED_S // 60} minutes after that",
                "journal": "",
                "returned": True,
            }
        if not running and target_of(root) == f"versions/{digest}" and keeps_crashing(request):
            return fall_back(request, version)
        if not version.is_dir():
            if not packed:
                return {"needs": "archive"}
            unpack(root, version, digest, packed, request["size"])
        return take_over(request, running)


def in_place(request: dict[str, Any], running: dict[str, Any]) -> bool:
    return bool(
        running.get("bundle") == request["digest"]
        and target_of(Path(request["directory"])) == f"versions/{request['digest']}"
        and read_units(request["units"]) == request["units"]
        and all(is_enabled(name, text) for name, text in request["units"].items())
    )


# ---- the archive --------------------------------------------------------------------------------------------------------


def unpack(root: Path, version: Path, digest: str, packed: bytes, size: int) -> None:
    """Checks the archive's hash, then unpacks, compiles, writes through to the disk, and renames it into place."""
    if len(packed) != size:
        raise Failed(f"the archive was cut off on its way: {len(packed)} of {size} bytes")
    archive = checked(packed, digest)
    for left in root.glob(".push-*"):  # of pushes that were cut off; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    own_directory(version.parent)
    work = Path(tempfile.mkdtemp(prefix=".push-", dir=root))
    try:
        write_files(archive, work)
        import compileall

        compileall.compile_dir(str(work), ddir=str(version), quiet=2)
        sync_all(work)
        work.rename(version)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    sync(version.parent)


def checked(packed: bytes, digest: str) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        archive = unpacker.decompress(packed, ARCHIVE_BYTES_MAX)
    except zlib.error:
        archive = b""
    if not unpacker.eof or hashlib.sha256(archive).hexdigest() != digest:
        raise Failed(
            "the archive that arrived is not the one that was sent (its SHA-256 differs); nothing of it was run"
        )
    return archive


def write_files(archive: bytes, directory: Path) -> None:
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            parts = member.name.split("/")
            if not member.isreg() or member.name.startswith("/") or ".." in parts:
                raise Failed("the archive holds something else than plain files")
            path = directory.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            content = members.extractfile(member)
            path.write_bytes(content.read() if content else b"")


def sync_all(directory: Path) -> None:
    """Writes the file system of `directory` through to its disk: one call where an fsync for each file took seconds."""
    import ctypes

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- switching ----------------------------------------------------------------------------------------------------------


def take_over(request: dict[str, Any], running: dict[str, Any]) -> dict[str, Any]:
    root, digest = Path(request["directory"]), request["digest"]
    before = target_of(root)
    units_before = read_units(request["units"])
    if before and before != f"versions/{digest}" and (root / before).is_dir():
        write_whole(root / before / UNITS, json.dumps(units_before))
    start(request, f"versions/{digest}", request["units"])
    if came_up(request, digest, running.get("instance")):
        if before != f"versions/{digest}":  # else it was only started anew, and the former one stays to fall back to
            prune(root, {f"versions/{digest}", before})
        return {"changed": True}
    journal = last_words(request)
    answer: dict[str, Any] = {"error": "the new agent does not come up", "journal": journal, "returned": False}
    if before and before != f"versions/{digest}" and (root / before).is_dir() and all(units_before.values()):
        failed = hello(request["socket"]).get("instance")
        start(request, before, units_before)
        answer["returned"] = came_up(request, before.rpartition("/")[2], failed)
    elif not before:
        systemctl("disable", "--now", *request["units"])
        (root / "current").unlink()
    return answer


def keeps_crashing(request: dict[str, Any]) -> bool:
    """For an agent that was in charge and does not answer: whether it starts again and again, or was just killed once and comes back."""
    before = crashes(request)
    if before < CRASHES_MAX:
        return False
    deadline = time.monotonic() + SETTLED_S
    while time.monotonic() < deadline:
        if crashes(request) > before:
            return True
        time.sleep(0.2)
    return False


def fall_back(request: dict[str, Any], version: Path) -> dict[str, Any]:
    """To the version that was in charge before, which is kept for this."""
    journal = last_words(request)
    answer: dict[str, Any] = {"error": "the agent crashes again and again", "journal": journal, "returned": False}
    for former in version.parent.iterdir():
        units = kept_units(former) if former.name != version.name else {}
        if units:
            start(request, f"versions/{former.name}", units)
            # Once `current` points elsewhere: cut before that, the next push falls back again.
            (version / REFUSED).write_text("")
            answer["returned"] = came_up(request, former.name, None)
            break
    return answer


def kept_units(version: Path) -> dict[str, str]:
    """What a version was started by; {} where nothing, or nothing whole, says so."""
    try:
        units: dict[str, str] = json.loads((version / UNITS).read_text())
        return units
    except (FileNotFoundError, ValueError):
        return {}


def is_refused(version: Path) -> bool:
    try:
        return 0 <= time.time() - (version / REFUSED).stat().st_mtime < REFUSED_S  # a clock may have gone wrong since
    except FileNotFoundError:
        return False


def start(request: dict[str, Any], target: str, units: dict[str, str]) -> None:
    """Writes and enables the units, points `current` to `target`, and restarts the agent. Podman's service only when its unit changed."""
    root = Path(request["directory"])
    changed = [name for name, text in units.items() if write_unit(name, text)]
    # Whether or not a unit was written here: a push that was cut may have written it and done no more.
    systemctl("daemon-reload")
    enable(units)
    # These take their time. Were the link there before, systemd might start that version by itself in between, which would answer, and
    # be restarted by what follows after it was said to be in charge.
    link = root / ".current-new"
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    link.rename(root / "current")
    sync(root)
    for name in units:
        systemctl("reset-failed", name)
        if name != request["service"]:
            systemctl("restart" if name in changed else "start", name)
    systemctl("restart", "--no-block", request["service"])


def came_up(request: dict[str, Any], bundle: str, former_instance: Any) -> bool:
    """Waits for another instance than the former to answer with this bundle; gives up early on one that keeps crashing."""
    deadline = time.monotonic() + request["wait_s"]
    looked = time.monotonic()
    while time.monotonic() < deadline:
        answer = hello(request["socket"])
        if answer.get("bundle") == bundle and answer.get("instance") != former_instance:
            return True
        if time.monotonic() - looked > 1:
            looked = time.monotonic()
            if crashes(request) >= CRASHES_MAX:
                return False
        time.sleep(0.05)
    return False


def last_words(request: dict[str, Any]) -> str:
    """The end of the agent's journal. An ordinary user may not be allowed to read it: then the agent is started by hand for a moment."""
    unit = "--unit" if IS_ROOT else "--user-unit"
    journal = output_of("journalctl", "--quiet", unit, request["service"], "--lines=8", "--output=cat", "--no-pager")
    if IS_ROOT or (journal and "insufficient permissions" not in journal):
        return journal
    systemctl("stop", request["service"])
    command = next(line for line in request["units"][request["service"]].splitlines() if line.startswith("ExecStart="))
    words = command.partition("=")[2].replace("%h", str(Path.home())).split()
    return output_of("timeout", "5", *words)


def crashes(request: dict[str, Any]) -> int:
    """How often systemd has started the agent again since it was last told to."""
    count = systemctl("show", "--property=NRestarts", "--value", request["service"]).strip()
    return int(count) if count.isdigit() else 0


def prune(root: Path, kept: set[str]) -> None:
    """Keeps the version in charge and the one before it."""
    for version in (root / "versions").iterdir():
        if f"versions/{version.name}" not in kept:
            shutil.rmtree(version, ignore_errors=True)


def read_units(names: Iterable[str]) -> dict[str, str]:
    """Text of each unit file, "" for one that is not there."""
    paths = {name: UNIT_DIRECTORY / name for name in names}
    return {name: path.read_text() if path.exists() else "" for name, path in paths.items()}


def is_enabled(name: str, text: str) -> bool:
    """Whether each target that the unit's text names starts it: systemd keeps that as a link beside the units."""
    lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith("WantedBy=")]
    targets = " ".join(lines).split()
    return all((UNIT_DIRECTORY / f"{target}.wants" / name).is_symlink() for target in targets)


def enable(names: Iterable[str]) -> None:
    """Raises Failed: what is not enabled would be gone after a reboot, unnoticed until then."""
    code, said = ran(*systemctl_words("enable", *names))
    if code != 0:
        raise Failed(f"systemctl enable: {said.strip()[-300:] or f'exit code {code}'}")


def write_unit(name: str, text: str) -> bool:
    if read_units([name])[name] == text:
        return False
    UNIT_DIRECTORY.mkdir(parents=True, exist_ok=True)
    write_whole(UNIT_DIRECTORY / name, text)
    return True


def write_whole(path: Path, text: str) -> None:
    """All of it or nothing, whenever the power goes."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.chmod(0o644)
    sync(new)
    new.rename(path)
    sync(path.parent)


# ---- the host -----------------------------------------------------------------------------------------------------------


def hello(path: str) -> dict[str, Any]:
    """What the running agent says of itself; {} when none answers."""
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(5)
        try:
            agent.connect(path)
            question = b'{"id":1,"verb":"hello","body":{}}'
            agent.sendall(struct.pack(">IB", len(question), 0) + question)
            head = receive(agent, 5)
            answer = json.loads(receive(agent, min(struct.unpack(">IB", head)[0], 1 << 20)))
            said: dict[str, Any] = answer["ok"] if isinstance(answer.get("ok"), dict) else {}
            return said
        except (OSError, ValueError, AttributeError, KeyError):
            return {}


def receive(agent: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = agent.recv(count - len(data))
        if not part:
            raise OSError("closed")
        data += part
    return data


def target_of(root: Path) -> str:
    """Where `current` points to, "" when it is not there."""
    current = root / "current"
    return os.readlink(current) if current.is_symlink() else ""  # noqa: PTH115 - Path.readlink is a Path


def own_directory(path: Path) -> None:
    """Made 0700 if missing; refused when it is somebody else's."""
    try:
        path.mkdir(0o700)
    except FileExistsError:
        pass
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise Failed(f"{path} is not a directory of {'root' if IS_ROOT else 'this user'} that nobody else may write to")


class locked:
    """One push at a time on a host; the lock dies with its holder."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def __enter__(self) -> None:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failed("another push to this host is under way") from None
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def systemctl(*words: str) -> str:
    return output_of(*systemctl_words(*words))


def systemctl_words(*words: str) -> tuple[str, ...]:
    return ("systemctl", *(() if IS_ROOT else ("--user",)), *words)


def output_of(*words: str) -> str:
    return ran(*words)[1]


def ran(*words: str) -> tuple[int, str]:
    """Exit code and output."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{' '.join(words[:2])}: {error}") from None
    return done.returncode, done.stdout.decode("utf-8", "replace")


main()
